/* istio-cni as one static executable: CPython's core with frozen modules, nothing of the host. The usual call needs no Python.
 *
 * Isolated: no site, no search for a standard library, no look at PATH, PYTHON* or the working directory, which would all
 * be read as root. _init_main = 0 stops after the core (no codecs, streams, path), which saves 2 ms of every pod's start; it is
 * provisional API, so the minor version is pinned where this is built, and tests run the file in an empty root.
 */
#define PY_SSIZE_T_CLEAN
#include "accelerator.h"
#include <Python.h>
#include <signal.h>
#include <unistd.h>

#if PY_MAJOR_VERSION != 3 || PY_MINOR_VERSION != 11
#error "the core-only start is tested with CPython 3.11 alone"
#endif

extern const struct _frozen istio_cni_modules[];

static void fail(const char *what) {
    fprintf(stderr, "istio-cni: CPython's core did not start: %s\n", what);
    _exit(1);
}

static void check(PyStatus status) {
    if (PyStatus_Exception(status)) fail(status.err_msg ? status.err_msg : "unknown reason");
}

struct begun begun;

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* an agent that goes away, or a journal that is closed, is an error to answer, not our end */
#if !defined ACCELERATED /* start.c has not run */
    begun.agent = -1;
#endif

    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    check(Py_PreInitialize(&before));
    PyImport_FrozenModules = istio_cni_modules;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = config.pathconfig_warnings = config.install_signal_handlers = 0;
    config.write_bytecode = config.parse_argv = 0;
    config.module_search_paths_set = 1;
    wchar_t *own = L"/istio-cni";
    wchar_t **paths[] = {&config.program_name, &config.home,        &config.executable,       &config.base_executable,
                         &config.prefix,       &config.exec_prefix, &config.base_prefix,      &config.base_exec_prefix,
                         &config.stdlib_dir};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) check(PyConfig_SetString(&config, paths[i], own));
    check(PyConfig_SetString(&config, &config.filesystem_encoding, L"utf-8"));
    check(PyConfig_SetString(&config, &config.filesystem_errors, L"surrogateescape"));
    config._init_main = 0;
    check(Py_InitializeFromConfig(&config));
    PySys_SetObject("warnoptions", PyList_New(0)); /* the core leaves it out; `warnings` asks for it on rare paths */

    PyObject *client = PyImport_ImportModule("plugin.client");
    if (client) /* ends the process */
        PyObject_CallMethod(client, "run", "y#y#id", begun.stdin_read, (Py_ssize_t)begun.stdin_size, begun.received,
                            (Py_ssize_t)begun.received_size, begun.agent, begun.since);
    PyErr_Print();
    _exit(1);
}
