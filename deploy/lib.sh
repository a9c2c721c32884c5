# shellcheck shell=bash
# Shared by the scripts of deploy/ and tests/: words on the screen, time, polling. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${BUILD:-$ROOT/build}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    _bold=$'\e[1m' _dim=$'\e[2m' _red=$'\e[31m' _green=$'\e[32m' _off=$'\e[0m' _tty=1
else
    _bold='' _dim='' _red='' _green='' _off='' _tty=
fi

# die WORDS...: one sentence on stderr, then exit 1.
die() { printf '%s%s:%s %s\n' "$_red" "${PROGRAM:-${0##*/}}" "$_off" "$*" >&2; exit 1; }

# warn WORDS...: one sentence on stderr.
warn() { printf '%s: %s\n' "${PROGRAM:-${0##*/}}" "$*" >&2; }

need_root() { [ "$(id -u)" = 0 ] || die "this needs root (namespaces, mounts and packages)"; }

# now_ms VAR: milliseconds of a clock that only moves forward (since boot), without a process of its own.
now_ms() {
    local _up _rest
    read -r _up _rest </proc/uptime
    printf -v "$1" '%d' "$((10#${_up/./} * 10))"
}

# seconds_text MS: "1.23" (centiseconds are what the clock above gives).
seconds_text() { printf '%d.%02d' "$(($1 / 1000))" "$(($1 % 1000 / 10))"; }

# wait_for SECONDS COMMAND...: runs COMMAND (quietly) again and again until it succeeds; 1 when the time is over.
# The command is tried at least once, and once more at the very end.
wait_for() {
    local _limit _now _last=0
    now_ms _now
    _limit=$((_now + $1 * 1000)); shift
    while :; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        [ "$_last" = 0 ] || return 1
        now_ms _now
        [ "$_now" -lt "$_limit" ] || _last=1
        sleep 0.05
    done
}

# --- steps: a line when it begins, its time when it is done ---------------------------------------------------------

_step_words='' _step_began=0 _step_open=
step() {
    _step_words=$* _step_open=1
    now_ms _step_began
    if [ -n "$_tty" ]; then printf '  %s…%s %s' "$_dim" "$_off" "$_step_words"; fi
}
# step_note WORDS: how far the step has come (a screen only).
step_note() { [ -z "$_tty" ] || printf '\r\e[K  %s…%s %s  %s%s%s' "$_dim" "$_off" "$_step_words" "$_dim" "$*" "$_off"; }
# step_done [WORDS]: closes the step; WORDS replace what it said at first.
step_done() {
    local _now
    now_ms _now
    [ -z "$_tty" ] || printf '\r\e[K'
    printf '  %s✓%s %-62s %s%6s s%s\n' "$_green" "$_off" "${*:-$_step_words}" "$_dim" "$(seconds_text $((_now - _step_began)))" "$_off"
    _step_open=
}
step_failed() {
    [ -n "$_step_open" ] || return 0
    [ -z "$_tty" ] || printf '\r\e[K'
    printf '  %s✗%s %s\n' "$_red" "$_off" "$_step_words"
    _step_open=
}
say() { printf '%s\n' "$*"; }
note() { printf '    %s%s%s\n' "$_dim" "$*" "$_off"; }
title() { printf '\n%s%s%s\n' "$_bold" "$*" "$_off"; }

# run_with_progress LOG PATTERN COMMAND...: runs COMMAND with its output in LOG and shows the newest part of it that
# matches the extended regular expression PATTERN; returns what COMMAND returned.
run_with_progress() {
    local log=$1 pattern=$2 pid newest shown='' now said=0
    shift 2
    "$@" >"$log" 2>&1 </dev/null & pid=$!
    now_ms said
    while kill -0 "$pid" 2>/dev/null; do
        newest=$(tail -c 4096 "$log" 2>/dev/null | tr '\r' '\n' | grep -aoE "$pattern" | tail -n 1) || newest=
        if [ -n "$newest" ] && [ "$newest" != "$shown" ]; then
            shown=$newest
            step_note "$shown"
            now_ms now
            if [ -z "$_tty" ] && [ $((now - said)) -ge 5000 ]; then note "$shown"; said=$now; fi
        fi
        sleep 0.2
    done
    wait "$pid"
}
