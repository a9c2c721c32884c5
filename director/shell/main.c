/* director: the shell. See director.1. */
#include "director/shell/shell.h"

#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: director [OPTION...] [PATH] VERB [WORD...]   do one thing\n"
    "       director [OPTION...] [PATH]                  without a verb: ls; without anything, at a terminal: the shell\n"
    "\n"
    "The cluster is a tree: /nodes/N/stores/S, /volumes/V/replicas/N, /targets/IQN/luns/L, /plugins/P,\n"
    "/tasks/K, /events/I.\n"
    "\n"
    "  ls [PATH] [DEPTH]                   what there is, as a tree\n"
    "  get [PATH] [PROPERTY...]            properties of an object\n"
    "  set [PATH] PROPERTY=VALUE...        change them\n"
    "  PATH create NAME [PROPERTY=VALUE...]\n"
    "  delete PATH\n"
    "  status [PATH]                       is it well, and what to do next\n"
    "  help PATH                           what can be done there, with every property explained\n"
    "  watch [PATH]                        a line for each change, until interrupted\n"
    "  PATH export | move | verify ...     what else an object can do (see its help)\n"
    "\n"
    "  director status\n"
    "  director /volumes create vol1 size=10G replicas=2\n"
    "  director /volumes/vol1 export\n"
    "  director /volumes/vol1 move owner=node2\n"
    "\n"
    "options:\n"
    "  -j, --json            answers as JSON\n"
    "  -s, --socket PATH     the agent's socket (else $DIRECTOR_SOCKET, else " DIRECTOR_DEFAULT_SOCKET ")\n"
    "  -t, --timeout SECONDS wait so long for an answer (30)\n"
    "  -q, --quiet           say nothing when a change succeeds\n"
    "  -y, --yes             do not ask before something destroys\n"
    "      --complete LINE   print what could complete LINE, one a line\n"
    "      --version\n"
    "      --help\n"
    "\n"
    "exit status: 0 done; 1 refused by the cluster; 2 wrong usage; 3 no agent reached; 4 no answer in time;\n"
    "5 the cluster is not quorate\n";

enum { OPTION_VERSION = 256, OPTION_HELP, OPTION_COMPLETE };

static const struct option options[] = {
    {"json", no_argument, NULL, 'j'},       {"socket", required_argument, NULL, 's'},
    {"timeout", required_argument, NULL, 't'}, {"quiet", no_argument, NULL, 'q'},
    {"yes", no_argument, NULL, 'y'},
    {"version", no_argument, NULL, OPTION_VERSION}, {"help", no_argument, NULL, OPTION_HELP},
    {"complete", required_argument, NULL, OPTION_COMPLETE}, {0},
};

struct arguments {
    const char *socket_path, *complete;
    int timeout_ms;
    bool timeout_given;
};

/* Options of the command line: -1 to go on, or an exit code. */
static int parse_options(int argc, char **argv, struct shell *shell, struct arguments *arguments)
{
    int option;
    while ((option = getopt_long(argc, argv, "+js:t:qy", options, NULL)) >= 0) {
        char *end;
        double seconds;
        switch (option) {
        case 'j':
            shell->json = true;
            break;
        case 'q':
            shell->quiet = true;
            break;
        case 'y':
            shell->yes = true;
            break;
        case 's':
            arguments->socket_path = optarg;
            break;
        case 't':
            seconds = strtod(optarg, &end);
            if (end == optarg || *end || !(seconds > 0 && seconds <= 86400))
                return shell_error(shell, EXIT_USAGE, "--timeout %s: give seconds, more than 0 and at most 86400", optarg);
            arguments->timeout_ms = (int)(seconds * 1000) > 0 ? (int)(seconds * 1000) : 1;
            arguments->timeout_given = true;
            break;
        case OPTION_COMPLETE:
            arguments->complete = optarg;
            break;
        case OPTION_VERSION:
            printf("director %s\n", director_version());
            return EXIT_DONE;
        case OPTION_HELP:
            fputs(usage, stdout);
            return EXIT_DONE;
        default: /* getopt has said it */
            fputs("director: director --help shows how it is used\n", stderr);
            return EXIT_USAGE;
        }
    }
    return -1;
}

static int print_completions(struct shell *shell, const char *line)
{
    struct candidates candidates;
    complete_line(shell, line, &candidates);
    for (size_t i = 0; i < candidates.count; i++)
        puts(candidates.text[i]);
    candidates_done(&candidates);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    struct shell shell = {.folder = "/"};
    struct arguments arguments = {0};
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    if (argc > 0)
        argv[0] = (char *)"director"; /* for getopt's words */
    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_DFL);
    int code = parse_options(argc, argv, &shell, &arguments);
    if (code >= 0)
        return code;
    char **words = argv + optind;
    unsigned count = (unsigned)(argc - optind);
    shell.unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    shell.color = isatty(STDOUT_FILENO) && !shell.json && !(no_color && no_color[0]) && !(term && strcmp(term, "dumb") == 0);
    if (count == 1 && strcmp(words[0], "help") == 0 && !shell.json) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    code = director_open(arguments.socket_path, &shell.director);
    if (!shell.director) {
        fputs("director: out of memory\n", stderr);
        return EXIT_NO_AGENT;
    }
    if (code < 0) {
        /* Whatever the reason, nobody was reached. */
        (void)shell_call_failed(&shell, code);
        director_close(shell.director);
        return EXIT_NO_AGENT;
    }
    if (arguments.timeout_given)
        director_set_timeout(shell.director, arguments.timeout_ms);
    if (arguments.complete)
        code = print_completions(&shell, arguments.complete);
    else if (count)
        code = shell_run(&shell, words, count);
    else
        code = shell_interact(&shell);
    director_close(shell.director);
    if (fflush(stdout) != 0 && code == EXIT_DONE)
        code = EXIT_REFUSED;
    return code;
}
