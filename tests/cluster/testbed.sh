#!/usr/bin/env bash
# The testbed itself, with a stand-in for the agent: what its verbs say is what happens, two testbeds do not meet, an
# interrupted start is replaced, and `down` leaves nothing.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
need_root

stand_in=$(mktemp -d -t director-stand-in.XXXXXX)
cat >"$stand_in/directord" <<'END'
#!/bin/bash
# Makes a key, or listens as an agent does. (Through env it would go by the name of bash.)
while [ $# -gt 0 ]; do
    case $1 in
        --generate-key) head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$2"; exit ;;
        --run) run=$2 ;;
        --state) state=$2 ;;
    esac
    shift
done
date >>"$state/starts"
socat UNIX-LISTEN:"$run/director.sock",fork EXEC:cat &
while :; do wait || true; done
END
chmod 755 "$stand_in/directord"
export DIRECTORD=$stand_in/directord
traces() { ip netns list | grep -c "dtb-$1-" || true; }
begin 3
trap 'NAME=${NAME%_b}; rm -rf "$stand_in"; finish' EXIT

reaches() { tb exec "$1" -- ping -q -c 1 -W 1 "$(address_of "$2")" >/dev/null; }
expect "nodes reach each other" reaches n1 n2
expect "the client reaches them" reaches client n3
expect "a node has its own host name" same n2 "$(tb exec n2 -- hostname)"
expect "and only its own processes" [ "$(tb exec n2 -- ps -e -o pid= | wc -l)" -lt 12 ]
expect "and an API socket" [ -S "$DIR/nodes/n2/run/director.sock" ]

unreached() { ! reaches "$1" "$2"; }
# heard A B: does a datagram from A arrive at B?
heard() {
    local listener
    tb exec "$2" -- timeout 5 socat -u UDP-RECV:9999 OPEN:"$OUT/heard",creat,append &
    listener=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        tb exec "$1" -- bash -c "echo hello >/dev/udp/$(address_of "$2")/9999" 2>/dev/null || true
        [ ! -s "$OUT/heard" ] || break
        sleep 0.1
    done
    kill "$listener" 2>/dev/null || true
    wait "$listener" 2>/dev/null || true
    if [ -s "$OUT/heard" ]; then rm -f "$OUT/heard"; else return 1; fi
}
not_heard() { ! heard "$1" "$2"; }
tb cut n1 n2
expect "a cut: n1 and n2 do not reach each other" unreached n1 n2
expect "... the others do" reaches n3 n1
tb heal
expect "healed" reaches n1 n2
tb cut n1 n2 --one-way
expect "a cut of one direction: n2 does not hear n1" not_heard n1 n2
expect "... n1 hears n2" heard n2 n1
tb heal
tb isolate n3 --keep-client
expect "an isolated node is not reached by the others" unreached n1 n3
expect "... but by the client, where that was asked" reaches client n3
tb heal

pid=$(agent_pid n1)
tb pause n1
expect "a paused agent is stopped" grep -q '^State:.T' "/proc/$pid/status"
tb resume n1
expect "a resumed one is not" grep -q '^State:.[SR]' "/proc/$pid/status"
tb kill n1 agent
expect "kill agent: it is gone" pids_gone "$pid"
expect "... the node is not" reaches n2 n1
tb start n1
expect "start: there is another" agent_runs n1

tb exec n2 -- bash -c 'echo x >/run/volatile; echo x >/dev/shm/volatile'
mapfile -t pids < <(node_pids n2)
tb kill n2 power
expect "power: every process of the node is gone" pids_gone "${pids[@]}"
expect "... and it is not reached" unreached n1 n2
refused "a command on it" 'off' tb exec n2 -- true
tb start n2
expect "it is back, at its address" reaches n1 n2
expect "... /run and /dev/shm were lost" tb exec n2 -- bash -c '[ ! -e /run/volatile ] && [ ! -e /dev/shm/volatile ]'
expect "... its state was not" same 2 "$(wc -l <"$DIR/nodes/n2/state/starts")"
expect "add: the next number" same n4 "$(tb add)"
refused "a node that does not exist" 'no node' tb kill n9
refused "up, when it is up" 'up already' tb up 2
refused "an unknown verb" 'no verb' tb explode

first=$NAME
NAME=${first}_b
setsid timeout -s KILL 0.25 "$ROOT/deploy/testbed" --name "$NAME" up 4 || true
expect "a second one, whose start was interrupted before" tb up 1
DIR_b=/var/tmp/director-testbed/$NAME
expect "... has other addresses" [ "$(cat "$DIR_b/nodes/n1/address")" != "$(address_of n1)" ]
tb down
expect "down leaves no namespace" same 0 "$(traces "$NAME")"
expect "... and no directory" [ ! -e "$DIR_b" ]
NAME=$first
expect "the first one is as it was" reaches n1 n4
mapfile -t pids < <(for node in n1 n2 n3 n4 client; do node_pids "$node"; done)
tb down
expect "down leaves no process" pids_gone "${pids[@]}"
expect "... no namespace" same 0 "$(traces "$NAME")"
expect "... and no directory" [ ! -e "$DIR" ]
