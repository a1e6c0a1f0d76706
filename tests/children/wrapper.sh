#!/bin/sh
# What npx and the like are: a shell that ignores signals, starts the server (its arguments) as a child that holds the
# pipes, and has other children that ignore everything.
trap '' TERM HUP INT
setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' &
sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' &
exec 3<&0
"$@" <&3 &
while :; do wait; sleep 1000; done
