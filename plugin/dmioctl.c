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
static gboolean as_json, show_version;
static double timeout_seconds = FOREVER;

static const GOptionEntry options[] = {
  { "socket", 's', 0, G_OPTION_ARG_FILENAME, &socket_path,
    "The socket that was given to nbdkit as control=SOCKET", "SOCKET" },
  { "json", 0, 0, G_OPTION_ARG_NONE, &as_json,
    "status: print what the server answers", NULL },
  { "timeout", 0, 0, G_OPTION_ARG_DOUBLE, &timeout_seconds,
    "wait: no longer than that", "SECONDS" },
  { "version", 'V', 0, G_OPTION_ARG_NONE, &show_version,
    "Print the version", NULL },
  { NULL },
};

static void die (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2), __noreturn__));

static void
die (const char *fmt, ...)
{
  va_list args;

  fflush (stdout);
  fprintf (stderr, "dmioctl: ");
  va_start (args, fmt);
  vfprintf (stderr, fmt, args);
  va_end (args);
  fprintf (stderr, "\n");
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
    die ("%s: %s", socket_path, error->message);
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
    die ("%s: the server has ended the connection: %s", socket_path,
         error->message);
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

static void
change_leg (const char *method, const char *leg)
{
  g_autoptr (GIOStream) stream = connect_to_server ();
  g_autoptr (GVariant) status = NULL;
  GVariantDict params;

  if (!g_utf8_validate (leg, -1, NULL))
    die ("%s: is not UTF-8; give the number of the leg", leg);
  g_variant_dict_init (&params, NULL);
  g_variant_dict_insert (&params, "leg", "s", leg);
  status = call (stream, method, g_variant_dict_end (&params));
  text_print_status (status);
}

static void
command_fail (const char *leg)
{
  change_leg ("fail", leg);
}

/* The server is in another directory. */
static void
command_add (const char *text)
{
  g_autofree char *error = NULL, *absolute = NULL;
  struct spec *spec;

  if (text[strspn (text, "0123456789")] == '\0') {
    change_leg ("add", text);
    return;
  }
  spec = spec_parse_region (text, &error);
  if (spec == NULL)
    die ("%s", error);
  absolute = spec_absolute_text (spec);
  spec_unref (spec);
  change_leg ("add", absolute);
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
run_command (int argc, char *argv[])
{
  int wanted;
  size_t i;

  if (argc < 2)
    die ("say what to do: status, wait, fail, add or log; see --help");
  for (i = 0; i < G_N_ELEMENTS (commands); i++)
    if (strcmp (argv[1], commands[i].name) == 0)
      break;
  if (i == G_N_ELEMENTS (commands))
    die ("unknown command '%s'; known are status, wait, fail, add and log",
         argv[1]);
  wanted = commands[i].argument != NULL ? 3 : 2;
  if (argc != wanted)
    die ("%s: give %s %s", argv[1], wanted == 3 ? "one" : "no",
         wanted == 3 ? commands[i].argument : "argument");
  commands[i].run (argv[2]);
}

int
main (int argc, char *argv[])
{
  g_autoptr (GOptionContext) context =
    g_option_context_new ("COMMAND - look after a mirror of nbdkit dmio");
  g_autoptr (GError) error = NULL;

  setlocale (LC_ALL, "");
  g_option_context_add_main_entries (context, options, NULL);
  g_option_context_set_description
    (context,
     "Commands:\n"
     "  status [--json]           what state the mirror and its legs are in\n"
     "  wait [--timeout SECONDS]  until all legs are in sync\n"
     "  fail LEG                  use a leg no more\n"
     "  add SPEC                  use it again, or a new one, and recover it\n"
     "  log FILE                  what is in a copy of the log (needs no -s)\n"
     "\nLEG is the number of a leg, or its SPEC as status shows it.  See "
     "dmioctl(1).");
  if (!g_option_context_parse (context, &argc, &argv, &error))
    die ("%s; see --help", error->message);
  if (!(timeout_seconds >= 0))
    die ("--timeout=%g: give a number of seconds", timeout_seconds);
  if (show_version)
    printf ("dmioctl %s\n", PACKAGE_VERSION);
  else
    run_command (argc, argv);
  return fflush (stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
