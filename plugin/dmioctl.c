/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* dmioctl(1): ask a server for the state of its mirror, or to change it, and
 * look at a copy of the log.
 */

#include <config.h>

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <json-glib/json-glib.h>
#include <jsonrpc-glib.h>

#include "dmioctl-log.h"
#include "dmioctl-text.h"
#include "escape.h"
#include "spec.h"

#define FOREVER G_MAXDOUBLE
#define BAR_INTERVAL (G_USEC_PER_SEC / 4)

/* The streams of jsonrpc-glib work in threads of GLib.  Since GLib is not
 * built with ThreadSanitizer, what it hands from one to the other looks like a
 * race.
 */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions (void);

const char *
__tsan_default_suppressions (void)
{
  return "called_from_lib:libgio-2.0.so\n"
    "called_from_lib:libglib-2.0.so\n"
    "called_from_lib:libjsonrpc-glib-1.0.so\n";
}
#endif

static char *socket_path;
static gboolean as_json, full, overwrite, show_version;
static double timeout_seconds = FOREVER;

static const GOptionEntry options[] = {
  { "socket", 's', 0, G_OPTION_ARG_FILENAME, &socket_path,
    "The socket that was given to nbdkit as control=SOCKET", "SOCKET" },
  { "json", 0, 0, G_OPTION_ARG_NONE, &as_json,
    "status: print what the server answers", NULL },
  { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &timeout_seconds,
    "wait: no longer than that", "SECONDS" },
  { "full", 0, 0, G_OPTION_ARG_NONE, &full,
    "add: copy everything, not only what the log says that it lacks", NULL },
  { "overwrite", 0, 0, G_OPTION_ARG_NONE, &overwrite,
    "add: the same, also if it has changes that the mirror has not", NULL },
  { "version", 'V', 0, G_OPTION_ARG_NONE, &show_version,
    "Print the version", NULL },
  G_OPTION_ENTRY_NULL
};

static void die (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2), __noreturn__));

static void
die (const char *fmt, ...)
{
  char *message, *line;
  va_list args;

  va_start (args, fmt);
  message = g_strdup_vprintf (fmt, args);
  va_end (args);
  line = escape_line (message);
  g_free (message);
  fflush (stdout);
  fprintf (stderr, "dmioctl: %s\n", line);
  g_free (line);
  exit (EXIT_FAILURE);
}

/*----------------------------------------------------------------------
 * The server
 */

static GIOStream *
connect_to_server (void)
{
  g_autoptr (GSocketAddress) address = NULL;
  g_autoptr (GSocketClient) client = g_socket_client_new ();
  g_autoptr (GError) error = NULL;
  GSocketConnection *connection;

  if (socket_path == NULL)
    die ("which server?  Name its socket with -s SOCKET: the one that was "
         "given to nbdkit as control=SOCKET");
  address = g_unix_socket_address_new (socket_path);
  connection = g_socket_client_connect (client, G_SOCKET_CONNECTABLE (address),
                                        NULL, &error);
  if (connection == NULL)
    die ("%s: no server answers: %s; was nbdkit started with control=%s, and "
         "does it run?", socket_path, error->message, socket_path);
  return G_IO_STREAM (connection);
}

/* While it was written to, or read. */
static void
connection_ended (const GError *error)
{
  die ("%s: the server has ended the connection: %s", socket_path,
       error->message);
}

static void
send_request (GIOStream *stream, const char *method, GVariant *params)
{
  g_autoptr (JsonrpcOutputStream) out =
    jsonrpc_output_stream_new (g_io_stream_get_output_stream (stream));
  g_autoptr (GVariant) message = NULL;
  g_autoptr (GError) error = NULL;
  GVariantDict dict;

  g_variant_dict_init (&dict, NULL);
  g_variant_dict_insert (&dict, "jsonrpc", "s", "2.0");
  g_variant_dict_insert (&dict, "id", "x", G_GINT64_CONSTANT (1));
  g_variant_dict_insert (&dict, "method", "s", method);
  g_variant_dict_insert_value (&dict, "params", params);
  message = g_variant_ref_sink (g_variant_dict_end (&dict));
  g_filter_output_stream_set_close_base_stream
    (G_FILTER_OUTPUT_STREAM (out), FALSE);
  if (!jsonrpc_output_stream_write_message (out, message, NULL, &error))
    connection_ended (error);
}

static GVariant *
receive_answer (GIOStream *stream)
{
  g_autoptr (JsonrpcInputStream) in =
    jsonrpc_input_stream_new (g_io_stream_get_input_stream (stream));
  g_autoptr (GError) error = NULL;
  GVariant *message;

  g_filter_input_stream_set_close_base_stream (G_FILTER_INPUT_STREAM (in),
                                               FALSE);
  if (!jsonrpc_input_stream_read_message (in, NULL, &message, &error))
    connection_ended (error);
  if (!g_variant_is_of_type (message, G_VARIANT_TYPE_VARDICT))
    die ("%s: the answer of the server is no object", socket_path);
  return message;
}

/* The result of the method; PARAMS may be floating. */
static GVariant *
call (GIOStream *stream, const char *method, GVariant *params)
{
  g_autoptr (GVariant) answer = NULL, problem = NULL;
  const char *text;
  GVariant *result;

  send_request (stream, method, params);
  answer = receive_answer (stream);
  problem = g_variant_lookup_value (answer, "error", G_VARIANT_TYPE_VARDICT);
  if (problem != NULL && g_variant_lookup (problem, "message", "&s", &text))
    die ("%s", text);
  result = g_variant_lookup_value (answer, "result", G_VARIANT_TYPE_VARDICT);
  if (result == NULL)
    die ("%s: the server has answered something else than a status",
         socket_path);
  return result;
}

static GVariant *
no_params (void)
{
  return g_variant_new_parsed ("@a{sv} {}");
}

/*----------------------------------------------------------------------
 * Commands
 */

static void
print_json (GVariant *value)
{
  g_autoptr (JsonNode) node = json_gvariant_serialize (value);
  g_autofree char *text = json_to_string (node, TRUE);

  printf ("%s\n", text);
}

static void
command_status (const char *unused)
{
  g_autoptr (GIOStream) stream = connect_to_server ();
  g_autoptr (GVariant) status = call (stream, "status", no_params ());

  if (as_json)
    print_json (status);
  else
    text_print_status (status);
}

static void
wait_with_bar (GIOStream *stream)
{
  double begun = g_get_monotonic_time ();
  struct text_bar bar = { .all = 0 };

  for (;;) {
    g_autoptr (GVariant) status = call (stream, "status", no_params ());

    text_draw_bar (&bar, status);
    if (text_is_in_sync (status))
      break;
    if ((g_get_monotonic_time () - begun) / G_USEC_PER_SEC >=
        timeout_seconds) {
      printf ("\n");
      die ("not in sync yet");
    }
    g_usleep (BAR_INTERVAL);
  }
  printf ("\n");
}

static void
command_wait (const char *unused)
{
  g_autoptr (GIOStream) stream = connect_to_server ();
  g_autoptr (GVariant) status = NULL;
  GVariantDict params;

  if (isatty (STDOUT_FILENO)) {
    wait_with_bar (stream);
    return;
  }
  g_variant_dict_init (&params, NULL);
  if (timeout_seconds != FOREVER)
    g_variant_dict_insert (&params, "timeout", "d", timeout_seconds);
  status = call (stream, "wait", g_variant_dict_end (&params));
}

/* A leg of STATUS that is shown as TEXT: as the server calls it, or NULL. */
static char *
find_shown (GVariant *status, const char *text)
{
  g_autoptr (GPtrArray) legs = text_get_legs (status);
  g_autofree char *name = escape_name (text);
  guint i;

  for (i = 0; i < legs->len; i++) {
    g_autofree char *spec = NULL, *shown = NULL;

    if (!g_variant_lookup (legs->pdata[i], "spec", "s", &spec))
      continue;
    shown = escape_line (spec);
    if (strcmp (spec, name) == 0 || strcmp (shown, text) == 0)
      return g_steal_pointer (&spec);
  }
  return NULL;
}

/* TEXT as the server understands it, which is in another directory. */
static char *
name_leg (GIOStream *stream, const char *text)
{
  g_autoptr (GVariant) status = NULL;
  g_autofree char *error = NULL, *absolute = NULL;
  struct spec *spec;
  char *shown;

  if (text[strspn (text, "0123456789")] == '\0')
    return g_strdup (text);
  status = call (stream, "status", no_params ());
  shown = find_shown (status, text);
  if (shown != NULL)
    return shown;
  spec = spec_parse_region (text, &error);
  if (spec == NULL)
    die ("%s", error);
  absolute = spec_absolute_text (spec);
  spec_unref (spec);
  return escape_name (absolute);
}

static void
change_leg (const char *method, const char *text)
{
  g_autoptr (GIOStream) stream = connect_to_server ();
  g_autofree char *leg = name_leg (stream, text);
  g_autoptr (GVariant) status = NULL;
  GVariantDict params;

  g_variant_dict_init (&params, NULL);
  g_variant_dict_insert (&params, "leg", "s", leg);
  if (full)
    g_variant_dict_insert (&params, "full", "b", TRUE);
  if (overwrite)
    g_variant_dict_insert (&params, "overwrite", "b", TRUE);
  status = call (stream, method, g_variant_dict_end (&params));
  text_print_status (status);
}

static void
command_fail (const char *leg)
{
  change_leg ("fail", leg);
}

static void
command_add (const char *leg)
{
  change_leg ("add", leg);
}

static void
command_log (const char *file)
{
  g_autofree char *error = NULL;

  if (!print_log_file (file, &error))
    die ("%s: %s", file, error);
}

static const struct {
  const char *name, *argument;
  void (*run) (const char *argument);
} commands[] = {
  { "status", NULL, command_status },
  { "wait", NULL, command_wait },
  { "fail", "LEG", command_fail },
  { "add", "SPEC", command_add },
  { "log", "FILE", command_log },
};

static void
parse_options (int *argc, char ***argv, bool before_command)
{
  g_autoptr (GOptionContext) context =
    g_option_context_new ("COMMAND - look after a mirror of nbdkit dmio");
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, options, NULL);
  g_option_context_set_strict_posix (context, before_command);
  g_option_context_set_description
    (context,
     "Commands:\n"
     "  status [--json]           what state the mirror and its legs are in\n"
     "  wait [--timeout SECONDS]  until all legs are in sync\n"
     "  fail LEG                  use a leg no more\n"
     "  add [--full|--overwrite] LEG|SPEC\n"
     "                            use it again, or a new one, and recover it\n"
     "  log FILE                  what is in a copy of the log (needs no -s)\n"
     "\nLEG is the number of a leg, or its SPEC.  See dmioctl(1).");
  if (!g_option_context_parse (context, argc, argv, &error))
    die ("%s; see --help", error->message);
  if (!(timeout_seconds >= 0))
    die ("--timeout=%g: give a number of seconds", timeout_seconds);
}

/* Options may follow a command.  But its only argument is taken as it is, and so
 * is one after "--": a name can begin with a dash.
 */
static void
parse_arguments (int *argc, char ***argv, bool has_argument)
{
  if (has_argument && *argc == 3 && strcmp ((*argv)[1], "--") == 0) {
    ++*argv;
    --*argc;
  }
  else if (!has_argument || *argc != 2)
    parse_options (argc, argv, false);
}

static void
run_command (int argc, char *argv[])
{
  const char *name = argv[0];
  bool has_argument;
  size_t i;

  if (argc < 1)
    die ("say what to do: status, wait, fail, add or log; see --help");
  for (i = 0; i < G_N_ELEMENTS (commands); i++)
    if (strcmp (name, commands[i].name) == 0)
      break;
  if (i == G_N_ELEMENTS (commands))
    die ("unknown command '%s'; known are status, wait, fail, add and log",
         name);
  has_argument = commands[i].argument != NULL;
  parse_arguments (&argc, &argv, has_argument);
  if (argc != (has_argument ? 2 : 1))
    die ("%s: give %s %s", name, has_argument ? "one" : "no",
         has_argument ? commands[i].argument : "argument");
  commands[i].run (argv[1]);
}

int
main (int argc, char *argv[])
{
  setlocale (LC_ALL, "");
  parse_options (&argc, &argv, true);
  if (show_version)
    printf ("dmioctl %s\n", PACKAGE_VERSION);
  else
    run_command (argc - 1, argv + 1);
  return fflush (stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
