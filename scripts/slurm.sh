#!/usr/bin/env bash
# One run on several machines of a SLURM cluster:  sbatch scripts/slurm.sh experiment=cifar10_resnet18 seed=1
# Other amounts go before the script:              sbatch --nodes=4 --gpus-per-node=8 scripts/slurm.sh ...
# From the checkout, on a file system that all machines see. A grid needs no script: python train.py -m hydra/launcher=slurm ...
#SBATCH --job-name=arclight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1 # arclight starts a process per device itself
#SBATCH --cpus-per-module=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120 # to this script, so many seconds before the time is over
#SBATCH --requeue # after a machine failed, or when the job is preempted
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

# Started again, the job keeps its number, by which arclight finds the run folder and goes on from its last checkpoint.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

# --kill-on-bad-exit: when the processes of one machine have failed, the others end at once and not at hardware.timeout_s
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" train.py "$@" &
wait "$!" # a signal ends `wait`, but not srun
