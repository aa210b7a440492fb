#!/bin/bash
# Fits and labels captures on many nodes: one process a GPU, all of them one run. OUT must lie where every node sees it.
#
#   sbatch --nodes 8 --gpus-per-node 8 scripts/slurm.sh CAPTURES PARSER OUT [--config FILE ...]
#
# A run that was killed, preempted or ran out of time goes on where it was when this is submitted again.
#SBATCH --job-name jsplat
#SBATCH --ntasks-per-node 8
#SBATCH --gpus-per-task 1
#SBATCH --signal TERM@120
#SBATCH --requeue
#SBATCH --open-mode append
set -euo pipefail

captures=$1 parser=$2 out=$3
shift 3
# Slurm's own variables tell JAX who is who; SIGTERM, two minutes before the end, lets every process save.
srun --kill-on-bad-exit=1 jsplat run "$out" --captures "$captures" --parser "$parser" --distributed "$@"
