"""Two processes with a sharded net train as one does, and each resumes from the other's checkpoints."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.distributed.tensor import DTensor

from arclight.callbacks.best_checkpoint import best_checkpoint, build_callbacks
from arclight.checkpoint import atomic_write, fsdp
from arclight.checkpoint.contents import CheckpointContents, build_module, newest_intact, restore
from arclight.checkpoint.fsdp import ShardedStrategy
from arclight.checkpoint.last_checkpoint import BeforeEpoch, LastCheckpoint
from arclight.checkpoint.single_file import CheckpointFiles
from arclight.config.compose import compose
from arclight.config.instantiate import build
from arclight.config.locations import CONF

pytestmark = pytest.mark.processes

IMAGES = ["experiment=demo", "data.num_train=64", "data.num_val=33", "data.num_test=31", "data.batch_size=16"]
CNN = [*IMAGES, "model.hidden=8", "model.widths=[3,5]"]  # of odd sizes, so that the processes do not share evenly
TEXT = ["experiment=demo_tagger", "data.num_train=32", "data.num_val=15", "data.num_test=15", "data.batch_size=16"]
CASES = {
    "images": CNN,
    "text": [
        *(*TEXT, "model.num_hidden_layers=2", "model.hidden_size=16", "model.dropout=0.0"),
        *("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"),
    ],
    "sgd": [*CNN, "optimizer=sgd", "optimizer.lr=0.05"],
    "averaged": [*CNN, "callbacks=weight_averaging", "callbacks.weight_averaging.decay=0.5"],
    "norms": [*IMAGES, "model=resnet18", "model.width=2"],
}
LIKE_ONE = ("images", "text", "sgd", "averaged")  # each process of batch norm has a batch of its own
WORKER = "import sys; from tests.project.engine.checkpoint.test_fsdp import work; work(sys.argv[1])"


class EveryEpoch(Callback):
    """Saves `0.ckpt` and `1.ckpt`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


class FailsAlone(Callback):
    """The second process fails after a step that no checkpoint has."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 3:
            raise OSError("the disk is on fire")


class FillsUp(Callback):
    """From the second epoch on, the disk of the second process takes no more of the last checkpoint."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        original = fsdp.write

        def refuse(file: Path, *arguments: Any, **named: Any) -> None:
            if trainer.global_rank == 1 and file.parent.name == "last.ckpt":
                raise atomic_write.NotWrittenError(f"{file} could not be written: no room")
            original(file, *arguments, **named)

        if trainer.current_epoch == 1:
            fsdp.write = refuse

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fsdp.write = atomic_write.write


def train(
    case: str,
    folder: Path,
    *,
    devices: int = 1,
    fsdp: bool = False,
    resume: Path | None = None,
    also: tuple[Callback, ...] = (),
) -> dict[str, Any]:
    """Returns the state after two epochs; a resumed run is not tested."""
    run_config = compose([*CASES[case], "precision=fp32"])
    settings = run_config.settings
    seed_everything(settings["seed"], verbose=False)
    data = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    module = build_module(settings, data.data_info, channels_last=not fsdp)  # as the plan has it
    last = LastCheckpoint(folder)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=ShardedStrategy(keep=2) if fsdp else "auto",
        plugins=None if fsdp else [CheckpointFiles()],
        max_epochs=2,
        gradient_clip_val=settings["trainer"]["gradient_clip_val"],
        gradient_clip_algorithm=settings["trainer"].get("gradient_clip_algorithm"),
        accumulate_grad_batches=settings["trainer"]["accumulate_grad_batches"] or 1,
        callbacks=[
            BeforeEpoch(last),
            CheckpointContents(settings, run_config.data, run_config.model),
            best_checkpoint(folder, module.monitor),
            last,
            EveryEpoch(folder),
            *build_callbacks(settings["callbacks"], module.monitor),
            *also,
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    states = trainer.optimizers[0].state_dict()["state"]
    found: dict[str, Any] = {
        "weights": whole(module.state_dict()),
        "optimizer": whole({f"{number}/{key}": value for number in states for key, value in states[number].items()}),
        "held": sum(held(parameter).numel() for parameter in module.parameters()),
    }
    if resume is None:
        trainer.test(module, datamodule=data, ckpt_path=folder / "best.ckpt", verbose=False, weights_only=True)
        assert module.scores is not None
        found |= {"counts": module.scores.counts, "best": whole(module.state_dict())}
    return found


def held(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone() for name, t in tensors.items()}


def work(place: str) -> None:
    """Runs every case in one of two processes, and again resumed from its first epoch."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", message="The dirpath has changed")
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")  # the metrics are in step already
    folder = Path(place)
    found: dict[str, Any] = {}
    for case in CASES:
        found[case] = train(case, folder / "two" / case, devices=2, fsdp=True)
        first = folder / "two" / case / "0.ckpt"
        found[f"{case} resumed"] = train(case, folder / "again" / case, devices=2, fsdp=True, resume=first)
    for case in LIKE_ONE:
        first = folder / "one" / case / "0.ckpt"
        found[f"{case} from one"] = train(case, folder / "from_one" / case, devices=2, fsdp=True, resume=first)
    train("text", folder / "full", devices=2, fsdp=True, also=(FillsUp(),))
    try:
        train("text", folder / "failed", devices=2, fsdp=True, also=(FailsAlone(),))
    except Exception as error:
        found["failed"] = str(error)
    torch.save(found, folder / f"{os.environ['LOCAL_RANK']}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    return {case: train(case, folder / "one" / case) for case in LIKE_ONE}


@pytest.fixture(scope="module")
def two(folder: Path, one: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the results of two processes, started once for all tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            cwd=CONF.parent,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    print(*outputs, sep="\n")
    assert [process.returncode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def _connected(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


@pytest.mark.parametrize("case", LIKE_ONE)
def test_two_processes_train_and_count_like_one(case: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for found in two:
        for part in ("weights", "optimizer", "best"):
            assert_close(found[case][part], one[case][part])
        assert found[case]["counts"] == one[case]["counts"]
    assert sum(found[case]["held"] for found in two) == one[case]["held"]
    assert all(found[case]["held"] < 0.7 * one[case]["held"] for found in two)


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(case: str, two: list[dict[str, Any]]) -> None:
    for found in two:
        for part in ("weights", "optimizer"):
            assert_equal(found[f"{case} resumed"][part], found[case][part])


def test_batch_norm_statistics_agree(two: list[dict[str, Any]], folder: Path) -> None:
    assert any("running_mean" in name for name in two[0]["norms"]["weights"])
    assert_equal(two[1]["norms"]["weights"], two[0]["norms"]["weights"])
    assert_equal(restore(folder / "two" / "norms" / "1.ckpt").module.state_dict(), two[0]["norms"]["weights"])


@pytest.mark.parametrize("case", LIKE_ONE)
def test_two_processes_resume_from_the_file_of_one(case: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for part in ("weights", "optimizer"):
        assert_close(two[0][f"{case} from one"][part], one[case][part])


@pytest.mark.parametrize("case", LIKE_ONE)
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_one_process_resumes_from_the_directory_of_two(
    case: str, one: dict[str, Any], two: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    found = train(case, tmp_path, resume=folder / "two" / case / "0.ckpt")
    for part in ("weights", "optimizer"):
        assert_close(found[part], one[case][part])


@pytest.mark.usefixtures("_connected")
@pytest.mark.filterwarnings("ignore:It is recommended to use .*sync_dist")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_it_joins_a_group_and_resumes_with_another_number_of_processes(
    one: dict[str, Any], two: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    found = train("text", tmp_path / "run", fsdp=True, resume=folder / "two" / "text" / "0.ckpt")
    for part in ("weights", "optimizer"):
        assert_close(found[part], one["text"][part])


@pytest.mark.parametrize("case", ["images", "text"])
def test_the_model_is_rebuilt_from_the_directory_alone(case: str, two: list[dict[str, Any]], folder: Path) -> None:
    restored = restore(folder / "two" / case / "best.ckpt")
    assert_equal(restored.module.state_dict(), two[0][case]["best"])


@pytest.mark.parametrize("name", ["best", "last", "0"])
def test_a_directory_holds_one_checkpoint_and_no_code(name: str, two: list[dict[str, Any]], folder: Path) -> None:
    checkpoint = folder / "two" / "text" / f"{name}.ckpt"
    files = torch.load(checkpoint / "contents.pt", weights_only=True)["files"]
    assert {path.name for path in checkpoint.iterdir()} == {"contents.pt", *files}
    assert [file[8:] for file in files] == [f"-{rank:05}-of-00002.safetensors" for rank in range(2)]


def test_a_damaged_last_checkpoint_falls_back_to_the_previous_one(
    two: list[dict[str, Any]], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder / "two" / "images", tmp_path / "checkpoints")
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert newest_intact(tmp_path) == last
    part = sorted(last.glob("*.safetensors"))[1]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    previous = last.with_name("last.previous.ckpt")
    assert newest_intact(tmp_path) == previous
    assert f"{part} cannot be read as a checkpoint: it has changed since it was written; resuming from" in caplog.text
    assert last.with_name("last.ckpt.damaged").is_dir()
    first = restore(folder / "two" / "images" / "0.ckpt").module.state_dict()
    assert_equal(restore(previous).module.state_dict(), first)


def test_a_disk_full_for_one_process_keeps_the_previous_checkpoint(two: list[dict[str, Any]], folder: Path) -> None:
    """Training continues."""
    assert_equal(
        restore(folder / "full" / "last.ckpt").module.state_dict(),
        restore(folder / "two" / "text" / "0.ckpt").module.state_dict(),
    )
    assert not (folder / "full" / "last.previous.ckpt").exists()
    assert len(list((folder / "full" / "last.ckpt").glob("*"))) == 3  # nothing of the save that failed
    assert_equal(
        restore(folder / "full" / "1.ckpt").module.state_dict(),
        restore(folder / "two" / "text" / "1.ckpt").module.state_dict(),
    )


def test_a_process_that_fails_ends_the_others_and_leaves_the_last_checkpoint(two: list[dict[str, Any]], folder: Path) -> None:
    assert two[1]["failed"] == "the disk is on fire"
    assert "failed" in two[0]
    assert_equal(
        restore(folder / "failed" / "last.ckpt").module.state_dict(),
        restore(folder / "two" / "text" / "0.ckpt").module.state_dict(),
    )
