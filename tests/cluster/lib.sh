# shellcheck shell=bash
# What the cluster tests share. A test sources it, calls `begin N`, and is then free to use the functions here and in
# deploy/lib-cluster.sh; at its end, however that comes, its testbed is taken down. KEEP=1 leaves that of a failed test up.
set -eu -o pipefail
TEST=$(basename "$0" .sh)
PROGRAM=$TEST
export NO_COLOR=1
# shellcheck source=deploy/lib.sh
. "$(dirname "$0")/../../deploy/lib.sh"
# shellcheck source=deploy/lib-cluster.sh
. "$ROOT/deploy/lib-cluster.sh"

VOLUME=vol1
OUT=''          # directory for what the test writes
BEGAN=0

# begin N [--faults]: a testbed of N nodes, its agents started; BEGAN is the moment before. Named for the build and the test, so
# that two builds do not meet and an interrupted run is replaced by the next.
begin() {
    need_root
    cluster_use "t$(cksum <<<"$BUILD" | cut -d ' ' -f 1)_$TEST"
    OUT=$(mktemp -d -t "director-$TEST.XXXXXX")
    trap finish EXIT
    trap 'exit 130' INT TERM
    tb down
    now_ms BEGAN
    tb up "$@"
    say "$TEST: $1 nodes are up"
}

# begin_cluster N [--faults]: the same, and waits for one quorate cluster of N.
begin_cluster() {
    local node
    begin "$@"
    # shellcheck disable=SC2046 # names without blanks
    wait_for 30 cluster_sees "$1" $(nodes_all) || {
        for node in $(nodes_all); do on "$node" status 2>&1 || true; done
        fail "the $1 nodes did not form one quorate cluster within 30 s"
    }
}

finish() {
    local rc=$?
    trap - EXIT
    set +e
    if [ "$rc" != 0 ]; then
        say "---- $TEST failed ----"
        tb status
        local node
        for node in $(nodes_all); do
            say "---- the last of $node's log"
            tail -n "${LOG_LINES:-25}" "$DIR/nodes/$node/log/agent.log"
        done
        for node in "$OUT"/*; do
            [ ! -s "$node" ] || { say "---- the last of ${node##*/}"; tail -n 15 "$node"; }
        done
    fi
    if [ "$rc" != 0 ] && [ -n "${KEEP:-}" ]; then
        say "kept: deploy/testbed --name $NAME status; output in $OUT; deploy/testbed --name $NAME down"
    else
        tb down
        rm -rf "$OUT"
    fi
    exit "$rc"
}

fail() { say "FAILED: $*"; exit 1; }
ok() { say "ok: $*"; }
elapsed() { local t; now_ms t; seconds_text $((t - ${1:-$BEGAN})); }

# expect WORDS COMMAND...: COMMAND must succeed.
expect() {
    local words=$1
    shift
    "$@" || fail "$words"
    ok "$words"
}

# eventually SECONDS WORDS COMMAND...: COMMAND must succeed within SECONDS; says how long it took.
eventually() {
    local limit=$1 words=$2 since
    shift 2
    now_ms since
    wait_for "$limit" "$@" || fail "$words: not within $limit s"
    ok "$words ($(elapsed "$since") s)"
}

# refused WORDS PATTERN COMMAND...: COMMAND must fail, with one line of words that matches the extended regular expression.
refused() {
    local words=$1 pattern=$2 text
    shift 2
    if text=$("$@" 2>&1 >/dev/null); then fail "$words: it was not refused: $text"; fi
    [ -n "$text" ] || fail "$words: refused without a word"
    [ "$(wc -l <<<"$text")" = 1 ] || fail "$words: more than one clear error: $text"
    grep -qiE "$pattern" <<<"$text" || fail "$words: refused, but with these words: $text"
    ok "$words: $(head -n 1 <<<"$text" | cut -c 1-160)"
}

same() { [ "$1" = "$2" ] || { say "    one:   $1"; say "    other: $2"; return 1; }; }

# volume_make SIZE REPLICAS [NODE [PROPERTY=VALUE ...]]: VOLUME, exported, and served by its owner.
volume_make() {
    local via=${3:-n1}
    on "$via" /volumes create "$VOLUME" size="$1" replicas="$2" "${@:4}" >/dev/null || fail "could not create $VOLUME"
    on "$via" "/volumes/$VOLUME" export >/dev/null || fail "could not export $VOLUME"
    IQN=$(volume_iqn "$via" "$VOLUME") || fail "$VOLUME has no target after export"
    OWNER=$(volume_owner "$via" "$VOLUME")
    # shellcheck disable=SC2034 # used by the tests
    OTHER=$(nodes_on | grep -vx "$OWNER" | head -n 1) || OTHER=''
    local node
    for node in $(nodes_on); do eventually 15 "$node serves $VOLUME" portal_serves "$node"; done
}

# kill_at_once COMMAND NODE...: kill -9 of all processes of that name on all the nodes, by one call of kill.
kill_at_once() {
    local command=$1 node
    local -a pids=() some
    shift
    for node in "$@"; do
        mapfile -t some < <(node_pids "$node" "$command")
        pids+=("${some[@]}")
    done
    pids_kill "${pids[@]}"
}

# io_verified: the initiator's end; nothing acknowledged may be lost, torn, stale or misplaced, and it must have done something.
io_verified() {
    io_finish || {
        cat "$OUT/io.json"
        fail "the initiator found a fault, or could not check everything"
    }
    say "    $IO_WRITES writes acknowledged, $IO_READS reads, $IO_RETRIES retries, $IO_SWITCHES path switches; lost $IO_LOST, torn $IO_TORN, stale $IO_STALE, misplaced $IO_MISPLACED; errors $IO_ERRORS"
    [ "$((IO_LOST + IO_TORN + IO_STALE + IO_MISPLACED))" = 0 ] || fail "what was acknowledged is not all intact"
    ok "every acknowledged block is intact"
}
