#!/usr/bin/env bash
# A run on Slurm, from a checkout with its .venv (`make install`) on a disk that all machines share:
#
#   sbatch cluster/deploy/slurm.sh --config cluster/configs/paper.yaml --data.uri DATASET --storage /shared/runs --data.global_batch 16
#
# What follows the file's name are options of `train`. The same command again goes on with the run. Slurm gives it itself
# when the job is preempted, and this script when the time limit ends it: two minutes before, the run saves a checkpoint
# and the job is put back into the queue.
#SBATCH --job-name=nla-cyclegan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --time=24:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}"
export PATH="$PWD/.venv/bin:$PATH"

# Others use these machines too: Ray asks for a token, which is this job's own and on no command line.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Not what the machine calls itself, which may be 127.0.1.1.
read -r address _ < <(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --all-ip-addresses)
address="$address:$((20000 + SLURM_JOB_ID % 20000))"

# The signal is for the driver alone, which runs on this machine too, the job's first: Ray's own processes have to live until
# the checkpoint is stored, and `ray symmetric-run` passes nothing on. A shell may stand before a python that is a script.
driver="^[^ ]*(python[0-9.]*|sh [^ ]*python[0-9.]*) -m cluster train --address $address( |$)"
signalled=no
trap 'signalled=yes; pkill --signal TERM --full "$driver" || echo "there is no driver to save a checkpoint" >&2' TERM

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
    -- python -m cluster train --address "$address" "$@" < /dev/null &
steps=$!
while :; do
    # A signal ends `wait`, not what it waits for.
    wait "$steps" && status=0 || status=$?
    kill -0 "$steps" 2> /dev/null || break
done

# Not where somebody has cancelled the job, which Slurm announces by the same signal. (Not in a pipe: one whose reader has seen
# enough fails.)
if [ "$signalled" = yes ] && [ "$status" -ne 0 ] &&
    [[ ! $(scontrol show job "$SLURM_JOB_ID") =~ JobState=(CANCELLED|COMPLETING|PREEMPTED) ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
