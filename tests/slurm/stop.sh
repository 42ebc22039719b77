#!/usr/bin/env bash
# Ends the Slurm that start.sh has started in a directory: stop.sh DIRECTORY.
SLURM_CONF="$1/slurm.conf" scancel --me --full
sleep 4  # for which KillWait lets jobs go on
for pid in "$1"/run/*.pid; do
    kill "$(cat "$pid")" 2>/dev/null
done
exit 0
