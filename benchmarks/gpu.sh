#!/usr/bin/env bash
# Every measurement that needs a GPU, on one device, without network, in under nine minutes.
#
#   benchmarks/gpu.sh --data DIR [--conll DIR] [--peer SCRIPT]... [--output DIR] [--only STEP,...] [--budget SECONDS]
#
#   --data DIR         holds cifar-10-batches-bin, CIFAR-10's binary files
#   --conll DIR        holds CoNLL-2003's files; generated sentences otherwise
#   --peer SCRIPT      somebody else's training script, unchanged (see benchmarks/peer.py); may be given several times
#   --output DIR       gets a result file for each step, logs/ and summary.json; ./gpu-results otherwise
#   --only STEP,...    some of: cifar10_fast peers tagger cifar10_96 precision scaling kernels loader inference
#   --budget SECONDS   for all steps together (530); what does not fit is left out and reported
#   --runs N           seeds of each recipe and peer (4)
#   --override K=V     added to our recipes and the tagger; may be given several times
#   --python PYTHON    the interpreter (python3)
#   --smoke            tiny nets and data on whatever is here, to check that every step runs; its numbers mean nothing
#
# The most important steps come first: those that do not fit into the budget can be measured by a second call with --only.
# Each step has its own limit, and one that fails does not stop the others. Exit status: 0 when all steps measured something.
set -u

checkout=$(cd "$(dirname "$0")/.." && pwd)
data= conll= output=gpu-results only= budget=530 runs=4 python=python3 smoke=
peers=() overrides=()
while [ $# -gt 0 ]; do
  [ "$1" = --smoke ] && { smoke=1 budget=3600; shift; continue; }
  case "$1" in -h | --help) sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
  [ $# -ge 2 ] || { echo "error: $1 needs a value; see $0 --help" >&2; exit 2; }
  case "$1" in
    --data) data=$2 ;; --conll) conll=$2 ;; --peer) peers+=("$(realpath "$2")") ;; --output) output=$2 ;; --only) only=$2 ;;
    --budget) budget=$2 ;; --runs) runs=$2 ;; --override) overrides+=("$2") ;; --python) python=$2 ;;
    *) echo "error: unknown option $1; see $0 --help" >&2; exit 2 ;;
  esac
  shift 2
done
[ -d "$data/cifar-10-batches-bin" ] || { echo "error: --data $data: cifar-10-batches-bin is missing in it" >&2; exit 2; }
[ -z "$conll" ] || [ -d "$conll" ] || { echo "error: --conll $conll: no such directory" >&2; exit 2; }
[[ $python != */* || $python == /* ]] || python=$PWD/$python
absent=$("$python" -c 'import importlib.util
required = "torch lightning transformers tokenizers torchmetrics hydra numpy PIL filelock rich psutil matplotlib jinja2"
print(*(name for name in required.split() if importlib.util.find_spec(name) is None))') || exit 2
[ -z "$absent" ] || { echo "error: $absent missing in $python; install requirements.txt, or name another with --python" >&2; exit 2; }
data=$(realpath "$data")
mkdir -p "$output/logs" && output=$(realpath "$output") || exit 2
: >"$output/steps.tsv"
export PYTHONPATH="$checkout/src:$checkout${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 WANDB_MODE=offline TOKENIZERS_PARALLELISM=false
child=
work=$(mktemp -d) && cd "$work" || exit 2
trap '[ -z "$child" ] || { kill "$child"; wait "$child"; } 2>/dev/null; cd / && rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

note() { # STEP STATUS SECONDS REASON
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$output/steps.tsv"
  echo "== $1: $2 after $3 s${4:+ ($4)}"
}

selected() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

step() { # NAME LIMIT COMMAND...: runs it for LIMIT seconds at most, and no longer than the budget lasts
  local name=$1 limit=$2 left=$((budget - SECONDS)) began=$SECONDS status said
  shift 2
  selected "${name%%-*}" || return 0
  limit=$((limit * patience))
  [ "$left" -ge 5 ] || { note "$name" "not measured" 0 "the budget of $budget s is spent"; return 0; }
  [ "$limit" -le "$left" ] || limit=$left
  echo "== $name: $*"
  timeout -k 5 "$limit" "$@" >"$output/logs/$name.log" 2>&1 &
  child=$! # waited for, so that a signal to this script reaches it
  wait "$child"
  status=$? child=
  case $status in
    0) note "$name" measured $((SECONDS - began)) "" ;;
    124 | 137) note "$name" "not measured" $((SECONDS - began)) "ran past its limit of $limit s; logs/$name.log" ;;
    *)
      said=$(grep -v '^ *$' "$output/logs/$name.log" | tail -n 1 | cut -c 1-200)
      note "$name" "not measured" $((SECONDS - began)) "status $status: $said"
      ;;
  esac
}

benchmark="$python -m arclight benchmark"
generated=(data=synthetic_images data.batch_size=64 model=cnn)
image=("data.root=$data" ${overrides[@]+"${overrides[@]}"})
tagged=(data=synthetic_text data.num_train=8000)
[ -z "$conll" ] || tagged=(data=conll2003 "data.root=$(realpath "$conll")")
layers=12 width=768 steps=100 rounds=3 batch=32 made=() sizes=1,16,256 patience=1
loggers="logger=[csv,wandb]"
"$python" -c 'import wandb' 2>/dev/null || { loggers="logger=[csv,tensorboard]"; note wandb "not measured" 0 "not installed"; }
also=(--also hardware.compile=true --also "hardware.compile=true $loggers")
if [ -n "$smoke" ]; then
  image+=(data.batch_size=20 data.eval_batch_size=20 data.validation=20 "model.widths=[8,8,8]" trainer.max_epochs=1)
  layers=1 width=32 steps=2 rounds=1 batch=8 runs=1 sizes=1,2 patience=5
  made=(model=small_cnn data.num_train=256 data.num_val=16 data.num_test=16)
  generated=(data=synthetic_images data.batch_size=64 "${made[@]}")
  [ -n "$conll" ] || tagged=(data=synthetic_text data.num_train=200 data.num_val=16 data.num_test=16)
  also=(--also "logger=[csv,tensorboard]")
fi

{ nvidia-smi 2>/dev/null || echo "no nvidia-smi here"; "$python" -c 'import torch, transformers, lightning
print("torch", torch.__version__, "transformers", transformers.__version__, "lightning", lightning.__version__)'; } >"$output/logs/machine.log" 2>&1

step cifar10_fast 150 "$python" -m benchmarks.records --runs "$runs" --output "$output/cifar10_fast.json" \
  "${also[@]}" experiment=cifar10_fast logger=none "${image[@]}"
for peer in ${peers[@]+"${peers[@]}"}; do
  name=$(basename "$peer" .py)
  step "peers-$name" 120 "$python" -m benchmarks.peer "$peer" --data "$data" --runs "$runs" --limit 110 \
    --output "$output/peer-$name.json"
done
[ ${#peers[@]} -gt 0 ] || ! selected peers || note peers "not measured" 0 "no --peer given"
if selected tagger || selected kernels; then
  log="$output/logs/encoder.log"
  "$python" -m benchmarks.bert_encoder "$work/encoder" --layers "$layers" --width "$width" "${tagged[@]}" >"$log" 2>&1 \
    || note encoder "not made" "$SECONDS" "$(tail -n 1 "$log" | cut -c 1-200)"
fi
text=("${tagged[@]}" "model.checkpoint=$work/encoder" "data.batch_size=$batch" ++data.max_length=128 trainer.gradient_clip_val=1.0)
text+=(${overrides[@]+"${overrides[@]}"})
precision=$("$python" -c 'import torch; print("bf16" if torch.cuda.is_available() else "fp32")')
step tagger 150 "$python" -m benchmarks.training --task text --steps "$steps" --repeats "$rounds" --against tagger_loop_bf16 \
  --against hf_trainer_bf16 --output "$output/tagger.json" "precision=$precision" "${text[@]}"
step cifar10_96 90 "$python" -m benchmarks.records --runs $(((runs + 1) / 2)) --output "$output/cifar10_96.json" \
  --without-process experiment=cifar10_96 logger=none "${image[@]}"
step precision 80 $benchmark precision --repeats 2 --without compile --output "$output/precision.json" "${generated[@]}"
step scaling 60 "$python" -m benchmarks.scaling --overhead --steps "$steps" --repeats 1 --output "$output/scaling.json" \
  ${made[@]+"${made[@]}"}
step kernels-images 40 "$python" -m benchmarks.kernels --precision "$precision" --output "$output/kernels-images.json" \
  experiment=cifar10_fast "${image[@]}"
step kernels-text 40 "$python" -m benchmarks.kernels --precision "$precision" --output "$output/kernels-text.json" \
  model=bert_tagger optimizer=adamw "${text[@]}"
step loader 30 "$python" -m benchmarks.loader --repeats "$rounds" --batches "$steps" --output "$output/loader.json" ${made[@]+"${made[@]}"}
step inference 40 $benchmark inference --batch-sizes "$sizes" --repeats "$rounds" --without compile \
  --output "$output/inference.json" "${generated[@]}"

"$python" - "$output" "$SECONDS" <<'PYTHON'
import json, pathlib, sys

output, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
rows = [line.split("\t") for line in output.joinpath("steps.tsv").read_text().splitlines()]
steps = [{"step": name, "status": status, "seconds": float(took), **({"reason": why} if why else {})} for name, status, took, why in rows]
output.joinpath("summary.json").write_text(json.dumps({"seconds": seconds, "steps": steps}, indent=2) + "\n")
output.joinpath("steps.tsv").unlink()
for path in sorted(output.glob("*.json")):
    plain = json.loads(path.read_text())
    for case in plain.get("cases", [])[:8]:
        keys = ("test/accuracy", "record_s", "with_closing_s", "tokens", "samples", "step", "factor", "peak_share", "share", "mfu", "train/mfu", "train/joules")
        shown = [f"{key} {case['figures'][key]['median']:.4g}" for key in keys if key in case["figures"]]
        print(f"{path.stem}: {case['name']}: {', '.join(shown) or case.get('missing', '')}")
missing = [f"{step['step']} ({step['reason']})" for step in steps if step["status"] != "measured"]
print("not measured: " + ("; ".join(missing) or "nothing"))
sys.exit(bool(missing))
PYTHON
