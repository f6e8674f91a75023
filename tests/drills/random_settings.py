"""Kills small runs of settings that are drawn at random from conf/, and compares each with a run that nothing stopped.

A setting that a run refuses (exit status 2), such as a combination that does not exist, is drawn again.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.drills.moments import FAMILY_S, POLL_S
from tests.drills.runs import Drill, Process, differences, end, family, results

COMMON = ["logger=csv", "checkpoint.every_minutes=null", "hardware.threads=1"]
SWA = "callbacks.swa"
TASKS: dict[str, dict[str, list[list[str]]]] = {  # of each list of choices, one is drawn
    "images": {
        "experiment": [["experiment=demo"]],
        "model": [
            ["model=small_cnn"],
            ["model=cnn", "model.hidden=16", "model.widths=[4,8]", "model.dropout=0.3"],
            ["model=cifarnet", "model.widths=[4,8,8]"],
            ["model=resnet18", "model.width=8"],
        ],
        "sizes": [
            [f"data.num_train={train}", "data.num_val=48", "data.num_test=16", "data.batch_size=16"] for train in (90, 128, 160)
        ],
        "optimizer": [["optimizer=adam"], ["optimizer=adamw"], ["optimizer=sgd", "optimizer.lr=0.02"], ["optimizer=muon"]],
        "augment": [
            ["data.augment=null"],
            ["data.augment.crop=2", "data.augment.flip=true"],
            ["data.augment.flip=alternating", "data.augment.cutout=4"],
        ],
        "module": [
            [],
            [],
            ["module.label_smoothing=0.1"],
            ["module.test_time_augmentation=flip"],
            ["module.lr_rule=sqrt", "module.lr_batch_size=32"],
        ],
    },
    "text": {
        "experiment": [["experiment=demo_tagger", "model.hidden_size=32", "trainer.gradient_clip_val=null"]],
        "model": [["model.dropout=0.0"], ["model.dropout=0.2"], ["model.dropout=0.1", "model.num_hidden_layers=1"]],
        "sizes": [
            [f"data.num_train={train}", "data.num_val=32", "data.num_test=16", "data.batch_size=16"] for train in (90, 128, 160)
        ],
        "optimizer": [["optimizer=adam"], ["optimizer=adamw"], ["optimizer=sgd", "optimizer.lr=0.02"]],
        "packing": [["data.packing=none"], ["data.packing=buckets"], ["data.packing=rows"], ["data.packing=fixed"]],
        "context": [[], [], ["+data.context=document", "data.num_train=1200"]],
        "module": [[], [], ["module.label_smoothing=0.1"], ["module.layer_decay=0.8"], ["module.freeze=[*embeddings*]"]],
    },
}
SHARED: dict[str, list[list[str]]] = {
    "scheduler": [[f"scheduler={name}"] for name in ("constant", "cosine", "one_cycle", "plateau", "steps", "warmup_linear")],
    "callbacks": [
        *(["callbacks=none"], ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"], ["callbacks=stop_on_nan"]),
        *(["callbacks=weight_averaging"], ["callbacks=[early_stopping,weight_averaging]"]),
        [
            *("callbacks=none", f"+{SWA}._target_=lightning.pytorch.callbacks.StochasticWeightAveraging"),
            *(f"+{SWA}.swa_lrs=0.01", f"+{SWA}.swa_epoch_start=1", f"+{SWA}.annealing_epochs=5"),
        ],
    ],
    "precision": [["precision=fp32"], ["precision=fp32"], ["precision=bf16"], ["precision=bf16_true"], ["precision=fp64"]],
    "strategy": [
        *([["trainer.accelerator=cpu", "trainer.devices=1"]] * 7),
        *([["strategy=ddp_cpu", "trainer.devices=2"]] * 2),
        ["strategy=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"],
    ],
    "micro_batches": [[], ["data.max_batch_per_device=8"], ["data.max_batch_per_device=4"]],
    "end": [
        *(["trainer.max_epochs=2"], ["trainer.max_epochs=3"], ["trainer.max_epochs=4"]),
        *(["trainer.max_epochs=-1", "trainer.max_steps=17"], ["trainer.max_epochs=3", "trainer.max_steps=20"]),
    ],
    "train_limit": [[], [], [], ["trainer.limit_train_batches=0.5"], ["trainer.limit_train_batches=6"]],
    "validation": [
        *([], [], ["trainer.check_val_every_n_epoch=2"], ["trainer.val_check_interval=0.5"], ["trainer.limit_val_batches=1"]),
    ],
    "clipping": [[], [], ["trainer.gradient_clip_val=0.5"]],
    "monitor": [[], [], ["monitor=val/loss"], ["monitor=none"]],
    "saves": [[], *([[f"checkpoint.every_steps={steps}"] for steps in (1, 1, 2, 3)])],
    "kept": [["checkpoint.keep=1"], [], ["checkpoint.keep=3"], ["checkpoint.save_top_k=2"], ["checkpoint.safetensors=true"]],
    "logged": [["trainer.log_every_n_steps=1"], ["trainer.log_every_n_steps=4"]],
}


def draw_overrides(draw: random.Random) -> list[str]:
    """Returns the overrides of a small run."""
    task = draw.choice(list(TASKS))
    chosen = [draw.choice(choices) for choices in (TASKS[task] | SHARED).values()]
    return [*(override for choice in chosen for override in choice), *COMMON, f"seed={draw.randrange(1000)}"]


def drill(folder: Path, num: int, seed: int, deadline: float, *, processes: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields a record for each of `num` settings; starts none after the deadline, by time.monotonic().

    Args:
        folder: for the runs; those that ended equal are removed.
        num: settings that train.
        seed: of settings and moments.
        deadline: of the start of a setting.
        processes: of each run; None draws it, too.
    """
    done = 0
    for number in range(100 * num):
        draw = random.Random(f"{seed}-{number}")
        if done == num or time.monotonic() > deadline:
            return
        overrides = draw_overrides(draw)
        while processes is not None and f"trainer.devices={processes}" not in overrides:
            overrides = draw_overrides(draw)
        name = f"random-{seed}-{number}"
        record = {"kind": "setting", "seed": seed, "number": number, "overrides": " ".join(overrides)}
        whole = Drill(folder / f"{name}-whole", overrides)
        if status := whole.finish("resume=auto"):
            last_line = whole.log_file.read_text().strip().splitlines()[-1:]
            if status != 2:
                yield {**record, "kills": [], "different": [f"exit status {status} of the whole run: {last_line}"]}
            continue
        done += 1
        run = Drill(folder / f"{name}-killed", overrides)
        start_s = float(results(whole.runs[0]).get("time/first_step_s") or 3.0)
        kills = []
        for _ in range(draw.choice((2, 3, 3))):
            process = run.start("resume=auto")
            moment, pids = wait_for_moment(process, run, draw, start_s)
            if moment is None:
                break
            end(process, signal.SIGKILL, pids)
            if run.has_finished:  # the kill came after that, and resume=auto would start another run
                break
            kills.append(moment)
        status = 0 if run.has_finished else run.finish("resume=auto")
        different = [f"exit status {status} of the resumed run"] if status else differences(whole, run)
        if not different:
            for drill in (whole, run):
                shutil.rmtree(drill.folder)
        yield {**record, "kills": kills, "different": different}


def wait_for_moment(process: Process, run: Drill, draw: random.Random, start_s: float) -> tuple[str | None, list[int]]:
    """Waits for a random moment: in start-up, or up to 0.3 s after one of the next saves of the last checkpoint.

    Returns:
        The moment in words, None for a run that ended before; the run's process ids.
    """
    is_start = draw.random() < 0.15
    num_saves, later_s = draw.randint(1, 7), draw.uniform(0.0, 0.3)
    began, limit_s = time.monotonic(), draw.uniform(0.0, 1.2) * start_s if is_start else 600.0
    listed, pids, seen, num_seen = 0.0, [process.pid], mark_of(run), 0
    while process.poll() is None:
        now = time.monotonic()
        if now - listed > FAMILY_S:
            pids, listed = family(process), now
        if now - began > limit_s:
            return "in start-up" if num_seen == 0 else f"{num_seen} saves after the start", family(process)
        if not is_start and (mark := mark_of(run)) != seen:
            seen, num_seen = mark, num_seen + 1
            if num_seen == num_saves:
                time.sleep(later_s)
                if process.poll() is None:
                    return f"{later_s:.2f} s after save {num_saves}", family(process)
        time.sleep(POLL_S)
    return None, pids


def mark_of(run: Drill) -> int:
    """Returns when the last checkpoint of a run was written; 0 without one."""
    marks = []
    for name in ("last.ckpt", "last.ckpt/contents.pt"):
        for file in run.folder.glob(f"outputs/*/*/checkpoints/{name}"):
            try:
                marks.append(file.stat().st_mtime_ns)
            except OSError:  # it is being replaced
                continue
    return max(marks, default=0)
