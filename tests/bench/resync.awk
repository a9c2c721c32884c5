# Lines of floor_bench (copy...) and resync_bench to medians.
function sorted_median(v, n,    i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function add(key, x) { value[key, ++count[key]] = x }
function median(key,    i, v) { for (i = 1; i <= count[key]; i++) v[i] = value[key, i]; return count[key] ? sorted_median(v, count[key]) : 0 }
{ if (!($2 in seen)) { seen[$2] = 1; places[++place_count] = $2 } }
$1 == "floor" { add("floor " $2 " " $4, $6); next }
$4 == "foreign" { add($1 " " $2 " foreign", $5); add($1 " " $2 " sent", $7); next }
$4 == "idle" { add($1 " " $2 " idle", $5); next }
{
    key = $1 " " $2 " " $4
    if (!(key in known)) { known[key] = 1; keys[++key_count] = key }
    for (i = 5; i <= 11; i++) add(key " " i, $i)
    add(key " p99", $7 > 0 ? $10 / $7 : 0)
}
END {
    printf "\nIdle volume, MB/s\n  %-8s %10s %10s %10s   %s\n", "", "floor", "clear", "tls", "part of the floor: clear, tls (aim > 85 %)"
    for (i = 1; i <= place_count; i++) {
        p = places[i]
        a = median("floor " p " copy256k-8"); b = median("floor " p " copy1m-4"); floor = a > b ? a : b
        clear = median("clear " p " idle"); tls = median("tls " p " idle")
        printf "  %-8s %10.0f %10.0f %10.0f   %.0f %%, %.0f %%\n", p, floor, clear, tls, floor ? 100 * clear / floor : 0, floor ? 100 * tls / floor : 0
    }
    printf "\nUnknown disk, one MiB in 16 differs, TLS: MB/s of the volume (MiB sent)\n"
    for (i = 1; i <= place_count; i++) printf "  %-8s %10.0f (%.0f)\n", places[i], median("tls " places[i] " foreign"), median("tls " places[i] " sent")
    printf "\nWith foreground writes      | all in sync               | while the resync runs                |\n"
    printf "%-6s %-8s %-10s | %8s %8s %8s | %8s %8s %8s %10s | %s\n", "link", "store", "workload", "IOPS", "p50 us", "p99 us", "IOPS", "p50 us", "p99 us", "MB/s", "p99 ratio (aim < 2)"
    for (i = 1; i <= key_count; i++) {
        k = keys[i]
        split(k, part, " ")
        printf "%-6s %-8s %-10s | %8.0f %8.0f %8.0f | %8.0f %8.0f %8.0f %10.1f | %.2f\n", part[1], part[2], part[3], median(k " 5"), median(k " 6"), median(k " 7"),
            median(k " 8"), median(k " 9"), median(k " 10"), median(k " 11"), median(k " p99")
    }
}
