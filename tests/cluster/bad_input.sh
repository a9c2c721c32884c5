#!/usr/bin/env bash
# Bad input gets one clear error, changes nothing and drops at most that connection.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2

# Everything that is committed; what only counts and measures is left out.
tree() {
    on n1 / ls | jq -S '[.[] | select(.kind != "session") | del(.summary) | .properties |= (. // {} |
        del(.read_bytes, .written_bytes, .read_requests, .write_requests, .resynced_bytes, .repaired_blocks, .read_errors, .dirty, .intent_marks, .carry_marks, .checksum_errors, .sessions, .space_total, .space_free, .leader))]'
}
before=$(tree)
agents=$(for node in n1 n2 n3; do agent_pid "$node"; done)

refused "an unknown path" 'no such|does not exist|there is no|not found' on n1 /volumes/nothing get
refused "an unknown folder" 'no such|does not exist|there is no|not found' on n2 /nonsense ls
refused "size 0" 'size' on n1 /volumes create bad size=0 replicas=2
refused "size 10E" 'size|64T' on n1 /volumes create bad size=10E replicas=2
refused "a size that is no number" 'size' on n1 /volumes create bad size=banana replicas=2
refused "replicas=9" 'replica' on n1 /volumes create bad size=16M replicas=9
refused "more replicas than nodes" 'replica|node|store' on n1 /volumes create bad size=16M replicas=4
refused "a store without space" 'free|space|room' on n3 /volumes create bad size=60T replicas=2
refused "an unknown property" 'colour|property' on n1 /volumes create bad size=16M replicas=2 colour=red
refused "a bad name" 'name' on n1 /volumes create 'Bad Name!' size=16M replicas=2
refused "a name that is taken" 'exists|already' on n2 /volumes create "$VOLUME" size=16M replicas=2
refused "a volume in use deleted" 'export|in use|lun|target' on n1 "/volumes/$VOLUME" delete
refused "an unknown verb" 'verb|command|unknown|frobnicate' on n1 /volumes frobnicate

# Garbage to the three kinds of sockets, while a client works.
io_start --seconds 10 -- "$OWNER" "$OTHER"
io_under_way
garbage() { # NODE PORT: random bytes, a huge length, an HTTP request, a cut-off header
    local kind
    for kind in random huge http short; do
        # shellcheck disable=SC2016 # for the inner shell
        tb exec client -- timeout 3 bash -c '
            exec 3<>"/dev/tcp/$1/$2" || exit 0
            case $3 in
                random) head -c 4096 /dev/urandom ;;
                huge) printf "\377\377\377\377\377\377\377\377"; head -c 512 /dev/zero ;;
                http) printf "GET / HTTP/1.1\r\nHost: x\r\n\r\n" ;;
                short) printf "DIR1\001" ;;
            esac >&3 2>/dev/null
            timeout 1 cat <&3 >/dev/null' _ "$(address_of "$1")" "$2" "$kind" 2>/dev/null || true
    done
}
garbage_api() {
    local kind
    for kind in random huge short; do
        case $kind in
            random) head -c 4096 /dev/urandom ;;
            huge) printf '\377\377\377\377'; head -c 512 /dev/zero ;;
            short) printf '\010\000\000\000abc' ;;
        esac | timeout 2 socat -t 0.5 - "UNIX-CONNECT:$DIR/nodes/$1/run/director.sock" >/dev/null 2>&1 || true
    done
}
for node in n1 n2 n3; do
    garbage "$node" 7600
    garbage "$node" 3260
    garbage_api "$node"
done
io_verified
expect "a client at work was not disturbed" [ "$IO_ERRORS" = 0 ]
expect "no agent died of it" same "$agents" "$(for node in n1 n2 n3; do agent_pid "$node"; done)"
expect "the cluster is whole" cluster_sees 3 n1 n2 n3
expect "nothing changed" same "$before" "$(tree)"

# A node with another key stays outside, and the others do not mind.
"$DIRECTORD" --generate-key "$OUT/other.key" >/dev/null
stranger=$(tb add --key "$OUT/other.key")
eventually 10 "a node with another key is a cluster of its own" node_sees "$stranger" 1
expect "it is not in ours" cluster_sees 3 n1 n2 n3
[ "$(prop n1 / uuid)" != "$(prop "$stranger" / uuid)" ] || fail "the stranger has our cluster's uuid"
expect "nothing changed" same "$before" "$(tree)"
