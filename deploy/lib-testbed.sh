# shellcheck shell=bash
# The parts of deploy/testbed: namespaces, nodes, faults. Sourced after lib.sh, never run.
#
# What there is of one testbed NAME (all of it goes with `down`):
#   $REGISTRY/NAME            symbolic link to its directory: the list of testbeds
#   DIR/testbed               its settings, one NAME=value a line; also the mark that the directory is ours to remove
#   DIR/cluster.key           the shared key
#   DIR/complete              `up` came to its end
#   DIR/faults/               one file a fault in force
#   DIR/nodes/N/              init (pid and start time of the node's process 1), address, key, args, run/, state/, log/,
#                             faults and shim (with `up --faults`)
#   network namespaces        dtb-NAME-switch (the bridge; one port a node, named like it), dtb-NAME-N
# The client is a node without an agent.

REGISTRY=/run/director-testbed
# Not empty: this testbed can be told faults of disks and clocks (`up --faults`).
FAULTS=${FAULTS:-}
# The client sits at this address, out of the way of the nodes.
# shellcheck disable=SC2034 # used by deploy/testbed
CLIENT_NUMBER=250

# --- names ----------------------------------------------------------------------------------------------------------

netns_of() { printf 'dtb-%s-%s' "$NAME" "$1"; }
node_dir() { printf '%s/nodes/%s' "$DIR" "$1"; }
node_exists() { [ -d "$DIR/nodes/$1" ]; }

# node_name VAR WORD: "2" and "n2" mean n2; dies when there is none.
node_name() {
    local _n=$2
    case $_n in [0-9]*) _n=n$_n ;; esac
    node_exists "$_n" || die "testbed $NAME has no node '$2': it has $(nodes_all | tr '\n' ' ')and client"
    printf -v "$1" '%s' "$_n"
}

# agent_name VAR WORD: like node_name, but the client will not do.
agent_name() {
    node_name "$1" "$2"
    [ "${!1}" != client ] || die "the client is not a node of the cluster: it has no agent to act on"
}

nodes_all() {
    local d
    for d in "$DIR"/nodes/n*; do [ ! -d "$d" ] || printf '%s\n' "${d##*/}"; done | sort -V
}

testbeds_all() {
    local l
    for l in "$REGISTRY"/*; do [ ! -L "$l" ] || printf '%s\n' "${l##*/}"; done
}

# --- processes ------------------------------------------------------------------------------------------------------

# node_init_pid NODE: the node's process 1 as seen from here; fails when the node is off. The start time guards
# against another process that was given the same number since.
node_init_pid() {
    local pid began stat
    read -r pid began 2>/dev/null <"$DIR/nodes/$1/init" || return 1
    read -r -a stat 2>/dev/null <"/proc/$pid/stat" || return 1
    [ "${stat[21]}" = "$began" ] && [ "${stat[2]}" != Z ] || return 1
    printf '%s' "$pid"
}

# node_pids NODE [COMMAND]: pids (as seen from here) of what runs in the node, process 1 left out; none is fine.
node_pids() {
    local init space
    init=$(node_init_pid "$1") || return 0
    space=$(readlink "/proc/$init/ns/pid") || return 0
    space=${space//[!0-9]/}
    ps -e -o pid=,pidns=,stat=,comm= |
        awk -v s="$space" -v i="$init" -v c="${2:-}" '$2 == s && $1 != i && $3 !~ /^Z/ && (c == "" || $4 == c) { print $1 }'
}

pids_gone() {
    local p
    for p in "$@"; do
        if [ -d "/proc/$p" ] && ! grep -qs '^State:.Z' "/proc/$p/status"; then return 1; fi
    done
}

# pids_kill PID...: SIGKILL, and wait until they are gone.
pids_kill() {
    [ $# -gt 0 ] || return 0
    kill -KILL "$@" 2>/dev/null || true
    wait_for 10 pids_gone "$@" || die "processes $* do not die"
}

# node_enter NODE COMMAND...: runs COMMAND inside the node, in the same directory when that can be.
node_enter() {
    local node=$1 init
    shift
    init=$(node_init_pid "$node") || die "node $node is off: 'deploy/testbed --name $NAME start $node' turns it on"
    PATH=$BUILD/director/shell:$BUILD/agent:$BUILD/tests/cluster:$PATH \
        nsenter --target "$init" --mount --uts --net --pid --wdns="$PWD" -- "$@"
}

# --- the switch -----------------------------------------------------------------------------------------------------

switch_make() {
    local s
    s=$(netns_of switch)
    ip netns add "$s"
    ip netns exec "$s" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
    ip -n "$s" link set lo up
    ip -n "$s" link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$s" link set bridge up
}

# wire_make NODE: the node's network namespace with eth0, plugged into the switch. The MAC follows from the number,
# so that the others' ARP entries still hold when the node comes back.
wire_make() {
    local node=$1 net sw number address
    net=$(netns_of "$node") sw=$(netns_of switch)
    address=$(<"$DIR/nodes/$node/address")
    number=${address##*.}
    ip netns add "$net"
    ip -n "$net" link set lo up
    ip link add eth0 netns "$net" address "$(printf '02:77:%02x:00:00:%02x' "$SUBNET" "$number")" \
        type veth peer name "$node" netns "$sw"
    ip -n "$net" addr add "$address/24" brd + dev eth0
    ip -n "$net" link set eth0 up
    ip -n "$sw" link set "$node" master bridge up
    if [ -f "$DIR/faults/slow-$node" ]; then
        # shellcheck disable=SC2046 # rate and delay are two words
        slow_apply "$node" $(<"$DIR/faults/slow-$node")
    fi
}

# wire_remove NODE: the kernel takes a namespace apart in its own time; the cable is pulled at once.
wire_remove() {
    ip -n "$(netns_of switch)" link del "$1" 2>/dev/null || true
    netns_remove "$(netns_of "$1")"
}

netns_remove() { ! ip netns pids "$1" >/dev/null 2>&1 || ip netns del "$1"; }

# --- nodes ----------------------------------------------------------------------------------------------------------

# node_make NODE NUMBER: its directory, not yet its processes.
node_make() {
    local d=$DIR/nodes/$1
    mkdir -p "$d/state" "$d/log" "$d/run"
    [ -z "$FAULTS" ] || truncate -s 4096 "$d/shim"
    printf '10.77.%s.%s\n' "$SUBNET" "$2" >"$d/address"
}

node_is_on() { node_init_pid "$1" >/dev/null; }

# node_power_on NODE: wire and process 1. Nothing of /run survives a power cut, so its run directory starts empty.
node_power_on() {
    local node=$1 d=$DIR/nodes/$1
    wire_remove "$node"
    rm -rf "$d/run" "$d/init"
    mkdir -p "$d/run"
    wire_make "$node"
    # The lock's descriptor must not live on in the node.
    setsid ip netns exec "$(netns_of "$node")" unshare --mount --uts --pid --fork \
        "$ROOT/deploy/node-init" "$d" "$node" >>"$d/log/init.log" 2>&1 </dev/null 9>&- 8>&- &
    wait_for 10 node_is_on "$node" || die "node $node did not start: see $d/log/init.log"
}

# node_power_off NODE: as a power cut looks from the others: silence first (no FIN and no RST may leave the node),
# then everything dies at once, then its sockets go with its network namespace.
node_power_off() {
    local node=$1 init
    ip -n "$(netns_of switch)" link set "$node" down 2>/dev/null || true
    if init=$(node_init_pid "$node"); then pids_kill "$init"; fi
    wire_remove "$node"
    rm -f "$DIR/nodes/$node/init"
}

agent_pid() { node_pids "$1" "${DIRECTORD##*/}" | head -n 1; }
agent_runs() { [ -n "$(agent_pid "$1")" ]; }
agent_settled() { [ -S "$DIR/nodes/$1/run/director.sock" ] || ! agent_runs "$1"; }

# agent_start NODE...: starts directord on each, then waits until every one listens for the shell.
agent_start() {
    local node d key
    local -a extra shim words
    for node in "$@"; do
        d=$DIR/nodes/$node
        [ -x "$DIRECTORD" ] || die "there is no $DIRECTORD: build first (cmake -B build -G Ninja && ninja -C build)"
        rm -f "$d/run/director.sock"
        key=$DIR/cluster.key
        [ ! -f "$d/key" ] || key=$d/key
        extra=()
        shim=() words=()
        [ -z "$FAULTS" ] || extra=(--faults "$d/faults") shim=(env "LD_PRELOAD=$BUILD/tests/cluster/fault_shim.so" "DIRECTOR_SHIM=$d/shim")
        [ ! -f "$d/args" ] || read -r -a words <"$d/args"
        # shellcheck disable=SC2016 # $0 and $@ are the inner shell's
        node_enter "$node" setsid --fork bash -c 'exec "$@" >>"$0" 2>&1 </dev/null 9>&- 8>&-' "$d/log/agent.log" \
            "${shim[@]}" "$DIRECTORD" --key "$key" --state "$d/state" --run /run/director --name "$node" --interface eth0 \
            --plugins "$BUILD/plugins" "${extra[@]}" "${words[@]}"
    done
    for node in "$@"; do
        wait_for 5 agent_runs "$node" || die "directord on $node ended at once: $(agent_last_words "$node")"
        wait_for 15 agent_settled "$node" || die "directord on $node does not open its API socket: see $DIR/nodes/$node/log/agent.log"
        agent_runs "$node" || die "directord on $node ended at once: $(agent_last_words "$node")"
    done
}

agent_last_words() { tail -n 1 "$DIR/nodes/$1/log/agent.log" 2>/dev/null || printf 'it left no log'; }

# --- faults ---------------------------------------------------------------------------------------------------------

# faults_set NODE RULE...: for the agent a file that it reads again when it was replaced, for the programs' system calls a page
# that they have mapped. Returns when both are in force.
faults_set() {
    local node=$1 d=$DIR/nodes/$1 rule shim='' filters='' mark
    shift
    for rule in "$@"; do
        case $rule in
            clock\ * | sync\ * | write\ *) shim+=$rule$'\n' ;;
            *) filters+=$rule$'\n' ;;
        esac
    done
    [ ${#shim} -lt 4096 ] || die "fault: too many rules"
    # Another size than the page would leave, or take away, what others have mapped.
    { printf '%s' "$shim"; head -c $((4096 - ${#shim})) /dev/zero; } | dd of="$d/shim" bs=4096 count=1 iflag=fullblock conv=notrunc status=none
    now_ms mark
    mark="#$mark"
    printf '%s%s\n' "$filters" "$mark" >"$d/faults.new"
    mv "$d/faults.new" "$d/faults"
    if agent_runs "$node"; then
        wait_for 5 grep -qF "$mark" "$d/log/agent.log" || die "fault: $(agent_last_words "$node")"
    fi
}
# Cuts are made in the switch, on its ports, so they hold for every protocol (mDNS, ARP and IPv6 too) and no node can
# tell. The files under faults/ are the truth; the rule set is made anew from them in one transaction.

faults_of_wire() {
    local f
    for f in "$DIR"/faults/cut-*; do [ ! -f "$f" ] || cat "$f"; done
}

cuts_apply() {
    local sw from to port every side
    sw=$(netns_of switch)
    {
        printf 'table bridge cut\ndelete table bridge cut\n'
        printf 'table bridge cut {\n  chain forward {\n    type filter hook forward priority 0; policy accept;\n'
        faults_of_wire | sort -u | while read -r from to; do
            printf '    iifname "%s" oifname "%s" drop\n' "$from" "$to"
        done
        cat "$DIR"/faults/flip-* 2>/dev/null | sort -u | while read -r from to port every; do
            # A byte 60 after the TCP header's begin: beyond the header, and, in a TLS record, what its seal covers.
            for side in sport dport; do
                printf '    iifname "%s" oifname "%s" ip protocol tcp tcp %s %s ip length > 120 numgen random mod %s 0 @th,480,8 set 0x5a\n' \
                    "$from" "$to" "$side" "$port" "$every"
            done
        done
        printf '  }\n}\n'
    } | ip netns exec "$sw" nft -f - || die "the kernel refuses bridge filter rules (CONFIG_NF_TABLES_BRIDGE): no cuts here"
}

# slow_apply NODE RATE DELAY: both directions of the node's wire.
slow_apply() {
    local node=$1 rate=$2 delay=$3 where
    slow_clear "$node"
    for where in "$(netns_of "$node") eth0" "$(netns_of switch) $node"; do
        # shellcheck disable=SC2086 # namespace and device are two words
        set -- $where
        if [ "$delay" != 0 ]; then
            tc -n "$1" qdisc add dev "$2" root handle 1: netem delay "$delay" 2>/dev/null ||
                { modprobe sch_netem 2>/dev/null && tc -n "$1" qdisc add dev "$2" root handle 1: netem delay "$delay"; } ||
                return 2
            [ "$rate" = 0 ] || tc -n "$1" qdisc add dev "$2" parent 1: handle 2: tbf rate "$rate" burst 64k latency 400ms || return 1
        elif [ "$rate" != 0 ]; then
            tc -n "$1" qdisc add dev "$2" root handle 1: tbf rate "$rate" burst 64k latency 400ms || return 1
        fi
    done
}

slow_clear() {
    tc -n "$(netns_of "$1")" qdisc del dev eth0 root 2>/dev/null || true
    tc -n "$(netns_of switch)" qdisc del dev "$1" root 2>/dev/null || true
}

# node_faults NODE: what is wrong with it, in words.
node_faults() {
    local node=$1 from to words=''
    while read -r from to; do
        [ "$from" != "$node" ] || words+="${words:+, }cannot reach $to"
        [ "$to" != "$node" ] || words+="${words:+, }not reached by $from"
    done < <(faults_of_wire | sort -u)
    [ -z "$(grep -lsE "^$node | $node " "$DIR"/faults/flip-*)" ] || words+="${words:+, }bits flip"
    [ ! -f "$DIR/faults/slow-$node" ] || words+="${words:+, }slow: $(tr '\n' ' ' <"$DIR/faults/slow-$node" | sed 's/ $//')"
    printf '%s' "$words"
}
