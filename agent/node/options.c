#include "agent/node/options.h"

#include "director/base/log.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#ifndef DIRECTOR_VERSION
#define DIRECTOR_VERSION "0"
#endif
#ifndef DIRECTOR_PLUGIN_DIR
#define DIRECTOR_PLUGIN_DIR "/usr/lib/director/plugins"
#endif

static const char usage[] =
    "usage: directord [options]\n"
    "The agent of one node of a Director cluster. It needs no configuration file: it finds its peers, joins them and\n"
    "keeps everything else in the replicated tree.\n"
    "\n"
    "  --key FILE           cluster key (/etc/director/cluster.key); the same file on every node\n"
    "  --generate-key FILE  write a new cluster key and exit\n"
    "  --name NAME          node name (the host name)\n"
    "  --interface IF       network interface for peers and initiators (the first with an IPv4 address)\n"
    "  --seeds A[,B...]     addresses of nodes to try besides mDNS\n"
    "  --state DIR          durable state (/var/lib/director)\n"
    "  --run DIR            sockets and pid files (/run/director)\n"
    "  --store DIR          folder of this node's default store (STATE/store)\n"
    "  --plugins DIR        plugins (" DIRECTOR_PLUGIN_DIR ")\n"
    "  --discovery PROGRAM  discovery helper (director-discovery beside this program)\n"
    "  --no-portal          do not serve iSCSI on this node\n"
    "  --faults FILE        fault injection for tests: filters under each replica, as FILE says\n"
    "  --log LEVEL          error, warning, notice, info, debug, or debug:MODULE,MODULE\n"
    "  --version, --help\n";

enum { OPTION_KEY = 256, OPTION_GENERATE, OPTION_NAME, OPTION_INTERFACE, OPTION_SEEDS, OPTION_STATE, OPTION_RUN, OPTION_STORE,
       OPTION_PLUGINS, OPTION_DISCOVERY, OPTION_NO_PORTAL, OPTION_FAULTS, OPTION_LOG, OPTION_VERSION, OPTION_HELP };

static const struct option long_options[] = {
    {"key", required_argument, NULL, OPTION_KEY},
    {"generate-key", required_argument, NULL, OPTION_GENERATE},
    {"name", required_argument, NULL, OPTION_NAME},
    {"interface", required_argument, NULL, OPTION_INTERFACE},
    {"seeds", required_argument, NULL, OPTION_SEEDS},
    {"state", required_argument, NULL, OPTION_STATE},
    {"run", required_argument, NULL, OPTION_RUN},
    {"store", required_argument, NULL, OPTION_STORE},
    {"plugins", required_argument, NULL, OPTION_PLUGINS},
    {"discovery", required_argument, NULL, OPTION_DISCOVERY},
    {"no-portal", no_argument, NULL, OPTION_NO_PORTAL},
    {"faults", required_argument, NULL, OPTION_FAULTS},
    {"log", required_argument, NULL, OPTION_LOG},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* director-discovery beside the running program, else in the library folder. */
static const char *options_discovery_default(void)
{
    static char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 32);
    if (length > 0) {
        path[length] = '\0';
        char *slash = strrchr(path, '/');
        strcpy(slash + 1, "director-discovery");
        if (access(path, X_OK) == 0)
            return path;
    }
    return "/usr/lib/director/director-discovery";
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
    static char host[HOST_NAME_MAX + 1];
    struct options options = {
        .key_path = "/etc/director/cluster.key",
        .state_path = "/var/lib/director",
        .run_path = "/run/director",
        .plugins_path = DIRECTOR_PLUGIN_DIR,
        .portal = true,
    };
    if (gethostname(host, sizeof(host) - 1) == 0) {
        host[strcspn(host, ".")] = '\0';
        options.name = host;
    }
    int choice;
    while ((choice = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (choice) {
        case OPTION_KEY:
            options.key_path = optarg;
            break;
        case OPTION_GENERATE:
            options.generate_key = optarg;
            break;
        case OPTION_NAME:
            options.name = optarg;
            break;
        case OPTION_INTERFACE:
            options.interface = optarg;
            break;
        case OPTION_SEEDS:
            options.seeds = optarg;
            break;
        case OPTION_STATE:
            options.state_path = optarg;
            break;
        case OPTION_RUN:
            options.run_path = optarg;
            break;
        case OPTION_STORE:
            options.store_path = optarg;
            break;
        case OPTION_PLUGINS:
            options.plugins_path = optarg;
            break;
        case OPTION_DISCOVERY:
            options.discovery_path = optarg;
            break;
        case OPTION_NO_PORTAL:
            options.portal = false;
            break;
        case OPTION_FAULTS:
            options.faults_path = optarg;
            break;
        case OPTION_LOG:
            if (log_configure(optarg) < 0) {
                fprintf(stderr, "directord: --log %s: choose error, warning, notice, info or debug\n", optarg);
                return -EINVAL;
            }
            break;
        case OPTION_VERSION:
            printf("directord " DIRECTOR_VERSION "\n");
            return 1;
        case OPTION_HELP:
            fputs(usage, stdout);
            return 1;
        default:
            fputs("directord: see directord --help\n", stderr);
            return -EINVAL;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "directord: unexpected argument %s; see directord --help\n", argv[optind]);
        return -EINVAL;
    }
    if (!options.discovery_path)
        options.discovery_path = options_discovery_default();
    *ret_options = options;
    return 0;
}
