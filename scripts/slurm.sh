#!/usr/bin/env bash
# One run on several machines of a SLURM cluster:  sbatch scripts/slurm.sh experiment=cifar10_resnet18 seed=1
# Other resources go before the script:            sbatch --nodes=4 --gpus-per-node=8 scripts/slurm.sh ...
# Submit from the checkout, on a file system that all machines share. A multirun needs no script:
#   python train.py -m hydra/launcher=slurm ...
#SBATCH --job-name=arclight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1 # arclight starts one process per device
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120 # sent to this script, 120 seconds before the time limit
#SBATCH --requeue # after a node failure or preemption
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

# A requeued job keeps its id, by which arclight finds the run directory and resumes from the last checkpoint.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

# --kill-on-bad-exit: when the processes of one node fail, the others end at once and not after hardware.timeout_s
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" train.py "$@" &
wait "$!" # a signal interrupts `wait`, but not srun
