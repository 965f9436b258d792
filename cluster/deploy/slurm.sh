#!/usr/bin/env bash
# A run on Slurm, from a checkout with its .venv (`make install`) on a disk that all machines share:
#
#   sbatch cluster/deploy/slurm.sh --config cluster/configs/paper.yaml --data.uri DATASET --storage /shared/runs --data.global_batch 16
#
# Everything after the file's name is an option of `train`. The same command again continues the run. Slurm requeues the job
# when it is preempted, and this script does when the time limit is near: two minutes before it, the run saves a checkpoint
# and the job goes back into the queue.
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

# Others use these machines too, so Ray asks for a token, which belongs to this job and is on no command line.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Not the address of the machine's own name, which may be 127.0.1.1.
read -r address _ < <(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --all-ip-addresses)
address="$address:$((20000 + SLURM_JOB_ID % 20000))"

# The signal is for the driver only, which also runs on this machine, the job's first: Ray's own processes have to live until
# the checkpoint is stored, and `ray symmetric-run` passes no signals on. If python is a script, there may be a shell in front of it.
driver="^[^ ]*(python[0-9.]*|sh [^ ]*python[0-9.]*) -m cluster train --address $address( |$)"
signalled=no
trap 'signalled=yes; pkill --signal TERM --full "$driver" || echo "there is no driver to save a checkpoint" >&2' TERM

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
    -- python -m cluster train --address "$address" "$@" < /dev/null &
steps=$!
while :; do
    # A signal ends `wait`, not the process that it waits for.
    wait "$steps" && status=0 || status=$?
    kill -0 "$steps" 2> /dev/null || break
done

# Not if somebody has cancelled the job, which Slurm announces by the same signal. (Not in a pipe, which fails when its reader
# closes it early.)
if [ "$signalled" = yes ] && [ "$status" -ne 0 ] &&
    [[ ! $(scontrol show job "$SLURM_JOB_ID") =~ JobState=(CANCELLED|COMPLETING|PREEMPTED) ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
