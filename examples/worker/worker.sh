#!/bin/sh
# Says that it is there, every so many seconds, until it is asked to stop.
trap 'echo "stopping"; exit 0' INT TERM
every=${2:-5}
while :; do
    echo "working"
    sleep "$every" &
    wait $!
done
