/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* This is not jsonrpc-glib's server, since that aborts the process on some
 * messages that are not as they should be, never answers others, takes messages
 * so large that the parser of JSON recurses until the stack ends, and keeps
 * a thread for each client that does not read.
 *
 * A connection is watched by a source, for what it is ready for.  It lives until
 * that is gone and all its calls are answered.  It reads no more while too
 * much is waiting to be answered or to be read by the client.
 */

#include <config.h>

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>
#include <json-glib/json-glib.h>

#include "frame.h"
#include "message.h"
#include "rpc.h"

/* More have to wait. */
#define MAX_CONNECTIONS 32
/* Of one connection: calls that are worked on, and bytes that are not sent. */
#define MAX_CALLS 16
#define MAX_UNSENT 65536

struct rpc {
  rpc_handler handler;
  void *context;
  bool closed;
  int fd;
  GSource *source;              /* of the listening socket; NULL: no more */
  GList *open;                  /* connections */
  unsigned int num_connections; /* that exist, perhaps closed */
};

struct connection {
  struct rpc *rpc;
  int fd;
  GSource *source;              /* NULL: closed */
  GIOCondition watched;
  bool ended;                   /* it has sent its last request */
  bool handling;
  unsigned int calls;           /* not answered */
  GString *unsent;
  size_t used;                  /* of what follows: received, not yet handled */
  char received[FRAME_MAX];
};

struct rpc_call {
  struct connection *connection;
  GVariant *id;
};

static void accept_more (struct rpc *rpc);
static gboolean on_ready (gint fd, GIOCondition condition, gpointer arg);

/*----------------------------------------------------------------------
 * Connections
 */

static void
clear_connection (void *arg)
{
  struct connection *c = arg;

  close (c->fd);
  g_string_free (c->unsent, TRUE);
  c->rpc->num_connections--;
  accept_more (c->rpc);
}

static void
unref_connection (void *arg)
{
  g_rc_box_release_full (arg, clear_connection);
}

/* Calls may still have to be answered, but nobody will hear that. */
static void
close_connection (struct connection *c)
{
  g_autoptr (GSource) source = g_steal_pointer (&c->source);

  if (source == NULL)
    return;
  c->rpc->open = g_list_remove (c->rpc->open, c);
  shutdown (c->fd, SHUT_RDWR);
  g_source_destroy (source);    /* which may have had the last reference */
}

static void
watch (struct connection *c, GIOCondition condition)
{
  g_autoptr (GSource) before = g_steal_pointer (&c->source);

  c->watched = condition;
  c->source = g_unix_fd_source_new (c->fd, condition);
  g_source_set_callback (c->source, G_SOURCE_FUNC (on_ready),
                         g_rc_box_acquire (c), unref_connection);
  g_source_attach (c->source, g_main_context_get_thread_default ());
  if (before != NULL)
    g_source_destroy (before);
}

static bool
may_read (const struct connection *c)
{
  return !c->ended && c->calls < MAX_CALLS && c->unsent->len < MAX_UNSENT;
}

/* Watch for what can be done now; that it has been hung up is always told. */
static void
watch_on (struct connection *c)
{
  GIOCondition condition = (may_read (c) ? G_IO_IN : 0) |
    (c->unsent->len > 0 ? G_IO_OUT : 0);

  if (c->source == NULL)
    return;
  if (c->ended && c->calls == 0 && c->unsent->len == 0)
    close_connection (c);
  else if (condition != c->watched)
    watch (c, condition);
}

static gboolean
accept_one (gint listening, GIOCondition condition, gpointer arg)
{
  struct rpc *rpc = arg;
  int fd = accept4 (listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  struct connection *c;

  if (fd == -1) {
    g_usleep (G_USEC_PER_SEC / 10);     /* no descriptors, perhaps */
    return G_SOURCE_CONTINUE;
  }
  c = g_rc_box_new0 (struct connection);
  c->rpc = rpc;
  c->fd = fd;
  c->unsent = g_string_new (NULL);
  rpc->num_connections++;
  rpc->open = g_list_prepend (rpc->open, c);
  watch (c, G_IO_IN);
  unref_connection (c);
  if (rpc->num_connections < MAX_CONNECTIONS)
    return G_SOURCE_CONTINUE;
  g_clear_pointer (&rpc->source, g_source_unref);
  return G_SOURCE_REMOVE;
}

static void
accept_more (struct rpc *rpc)
{
  if (rpc->closed || rpc->source != NULL)
    return;
  rpc->source = g_unix_fd_source_new (rpc->fd, G_IO_IN);
  g_source_set_callback (rpc->source, G_SOURCE_FUNC (accept_one), rpc, NULL);
  g_source_attach (rpc->source, g_main_context_get_thread_default ());
}

/*----------------------------------------------------------------------
 * Answers
 */

static void
send_unsent (struct connection *c)
{
  ssize_t n = send (c->fd, c->unsent->str, c->unsent->len, MSG_NOSIGNAL);

  if (n >= 0)
    g_string_erase (c->unsent, 0, n);
  else if (errno != EAGAIN && errno != EINTR)
    close_connection (c);
}

/* ID may be NULL: it could not be read. */
static void
send_answer (struct connection *c, GVariant *id, const char *key,
             GVariant *value)
{
  g_autoptr (GVariant) message = NULL;
  g_autofree char *text = NULL;
  GVariantDict dict;
  size_t length;

  g_variant_dict_init (&dict, NULL);
  g_variant_dict_insert (&dict, "jsonrpc", "s", "2.0");
  g_variant_dict_insert_value (&dict, "id", id != NULL ? id :
                               g_variant_new_maybe (G_VARIANT_TYPE_VARIANT,
                                                    NULL));
  g_variant_dict_insert_value (&dict, key, value);
  message = g_variant_ref_sink (g_variant_dict_end (&dict));
  text = json_gvariant_serialize_data (message, &length);
  if (c->source == NULL)
    return;
  frame_append (c->unsent, text, length);
  send_unsent (c);
}

static void
send_error (struct connection *c, GVariant *id, int code, const char *text)
{
  GVariantDict dict;

  g_variant_dict_init (&dict, NULL);
  g_variant_dict_insert (&dict, "code", "i", code);
  g_variant_dict_insert_value (&dict, "message", message_string (text));
  send_answer (c, id, "error", g_variant_dict_end (&dict));
}

static void handle_received (struct connection *c);

static void
end_call (struct rpc_call *call)
{
  struct connection *c = call->connection;

  c->calls--;
  handle_received (c);
  unref_connection (c);
  g_variant_unref (call->id);
  g_free (call);
}

void
rpc_reply (struct rpc_call *call, GVariant *result)
{
  send_answer (call->connection, call->id, "result", result);
  end_call (call);
}

void
rpc_error (struct rpc_call *call, int code, const char *fmt, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, fmt);
  text = g_strdup_vprintf (fmt, args);
  va_end (args);
  send_error (call->connection, call->id, code, text);
  end_call (call);
}

bool
rpc_is_gone (const struct rpc_call *call)
{
  return call->connection->source == NULL;
}

/*----------------------------------------------------------------------
 * Requests
 */

static bool
is_id (GVariant *id)
{
  return g_variant_is_of_type (id, G_VARIANT_TYPE_STRING) ||
    g_variant_is_of_type (id, G_VARIANT_TYPE_INT64) ||
    (g_variant_is_of_type (id, G_VARIANT_TYPE_DOUBLE) &&
     isfinite (g_variant_get_double (id)));
}

static void
handle_call (struct connection *c, GVariant *id, const char *method,
             GVariant *params)
{
  struct rpc_call *call = g_new (struct rpc_call, 1);

  *call = (struct rpc_call) {
    .connection = g_rc_box_acquire (c), .id = g_variant_ref (id),
  };
  c->calls++;
  c->rpc->handler (c->rpc->context, call, method, params);
}

/* A request without an id wants no answer, and there is nothing that one could
 * want to be done without.
 */
static void
handle_message (struct connection *c, GVariant *message)
{
  g_autoptr (GVariant) id = NULL, params = NULL;
  const char *version, *method;

  if (!g_variant_is_of_type (message, G_VARIANT_TYPE_VARDICT)) {
    send_error (c, NULL, RPC_INVALID_REQUEST, "a request must be an object");
    return;
  }
  id = g_variant_lookup_value (message, "id", NULL);
  params = g_variant_lookup_value (message, "params", NULL);
  if (id != NULL && !is_id (id))
    send_error (c, NULL, RPC_INVALID_REQUEST,
                "id must be a string or a number");
  else if (!g_variant_lookup (message, "jsonrpc", "&s", &version) ||
           !g_str_equal (version, "2.0") ||
           !g_variant_lookup (message, "method", "&s", &method))
    send_error (c, id, RPC_INVALID_REQUEST,
                "a request must have jsonrpc, which is \"2.0\", and method");
  else if (id != NULL)
    handle_call (c, id, method, params);
}

static void
handle_text (struct connection *c, const char *text, size_t length)
{
  g_autofree char *error = NULL;
  g_autoptr (GVariant) message = message_parse (text, length, &error);

  if (message != NULL)
    handle_message (c, message);
  else
    send_error (c, NULL, RPC_PARSE_ERROR, error);
}

/* All that is complete, as long as answers can be sent. */
static void
handle_messages (struct connection *c)
{
  enum frame frame = FRAME_COMPLETE;
  size_t begin, length;

  while (c->source != NULL && c->used > 0 && c->calls < MAX_CALLS &&
         c->unsent->len < MAX_UNSENT) {
    frame = frame_find (c->received, c->used, &begin, &length);
    if (frame != FRAME_COMPLETE)
      break;
    handle_text (c, c->received + begin, length);
    c->used -= begin + length;
    memmove (c->received, c->received + begin + length, c->used);
  }
  if (frame == FRAME_WRONG)
    close_connection (c);
}

/* To be called whenever more can be handled than before.  A call that is
 * answered at once gets here again.
 */
static void
handle_received (struct connection *c)
{
  if (c->handling)
    return;
  c->handling = true;
  handle_messages (c);
  c->handling = false;
  watch_on (c);
}

static void
receive (struct connection *c)
{
  ssize_t n = recv (c->fd, c->received + c->used, FRAME_MAX - c->used, 0);

  if (n > 0)
    c->used += n;
  else if (n == 0)
    c->ended = true;
  else if (errno != EAGAIN && errno != EINTR)
    close_connection (c);
}

/* A client may shut down its side and wait for answers, but when it has hung up
 * there is nobody to answer.
 */
static gboolean
on_ready (gint fd, GIOCondition condition, gpointer arg)
{
  struct connection *c = g_rc_box_acquire (arg);
  GSource *source = c->source;
  bool same;

  if (condition & G_IO_OUT)
    send_unsent (c);
  if (c->source != NULL && condition & G_IO_IN)
    receive (c);
  else if (condition & (G_IO_HUP | G_IO_ERR))
    close_connection (c);
  handle_received (c);
  same = c->source == source;
  unref_connection (c);
  return same ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/*----------------------------------------------------------------------
 * The server
 */

struct rpc *
rpc_new (int fd, rpc_handler handler, void *context)
{
  struct rpc *rpc = g_new0 (struct rpc, 1);

  rpc->handler = handler;
  rpc->context = context;
  rpc->fd = fd;
  accept_more (rpc);
  return rpc;
}

void
rpc_close (struct rpc *rpc)
{
  rpc->closed = true;
  if (rpc->source != NULL) {
    g_source_destroy (rpc->source);
    g_clear_pointer (&rpc->source, g_source_unref);
  }
  while (rpc->open != NULL)
    close_connection (rpc->open->data);
}

bool
rpc_is_busy (const struct rpc *rpc)
{
  return rpc->num_connections > 0;
}

void
rpc_free (struct rpc *rpc)
{
  g_free (rpc);
}
