#!/usr/bin/env bash
# Starts Slurm on this machine alone, with its files in a directory: start.sh DIRECTORY PORT PORT. Needs root, and Debian's
# packages slurm-wlm and munge. SLURM_CONF=DIRECTORY/slurm.conf makes commands use it; stop.sh ends it.
# cred_expire is also the time that a job which was queued again waits, by default two minutes.
set -euo pipefail
directory=$(realpath "$1")
host=$(hostname -s)
mkdir -p "$directory"/{state,spool,run}
chmod 755 "$directory"
cat > "$directory/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$2
SlurmdPort=$3
AuthType=auth/munge
AuthInfo=socket=$directory/run/munge.socket,cred_expire=15
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/run/slurmctld.pid
SlurmdPidFile=$directory/run/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=3
SlurmctldParameters=preempt_send_user_signal
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES State=UP
EOF
[ -f "$directory/munge.key" ] || dd if=/dev/urandom of="$directory/munge.key" bs=1024 count=1 status=none
chmod 400 "$directory/munge.key"
munged --force --num-threads=1 --key-file="$directory/munge.key" --socket="$directory/run/munge.socket" \
    --pid-file="$directory/run/munged.pid" --log-file="$directory/munged.log" --seed-file="$directory/munged.seed"
export SLURM_CONF="$directory/slurm.conf"
slurmctld -i 2>/dev/null
slurmd 2>/dev/null
for _ in $(seq 50); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && exit
    sleep 0.2
done
tail "$directory"/*.log >&2
exit 1
