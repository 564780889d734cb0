/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Connecting to an NBD server.
 *
 * An attempt has a thread of its own, since libnbd can take longer than
 * anybody wants to wait: it resolves names with getaddrinfo, which cannot
 * be interrupted, and does not return from a TLS handshake that makes no
 * progress.  All else ends at the deadline or when the attempt is called
 * off, which also shuts the socket down and so ends a handshake.  A thread
 * that nobody waits for any more touches nothing but the attempt, and
 * frees that; the objects this is linked into are never unloaded
 * (-z nodelete).
 *
 * Lock: attempt->lock owns the fields below it.  A leaf.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>

#include "clock.h"
#include "dm-io.h"
#include "nbd-connect.h"
#include "nbd-disconnect.h"
#include "worker.h"

#define DEFAULT_PORT 10809

/* What a server that names no maximum has to support. */
#define MAX_TRANSFER (32 * 1024 * 1024)
/* The largest minimum block size: one page of the reserve can hold it. */
#define MAX_BLOCK_SIZE DM_IO_PAGE_SIZE

/* How late a thread may be that does not hang. */
#define GRACE_NSEC (NSEC_PER_SEC / 4)

/* How long more connections may take: this, or so many times as long as
 * the first.
 */
#define OTHERS_NSEC NSEC_PER_SEC
#define OTHERS_TIMES 4

struct nbd_attempt {
  char *uri;
  unsigned int timeout;
  uint64_t deadline;
  uint64_t called_off_at;       /* 0: it was not */
  int wake_fd;
  int cancel_fd;                /* an eventfd */
  pthread_t thread;

  pthread_mutex_t lock;
  pthread_cond_t has_ended;
  int fd;                       /* of the socket in use, or -1 */
  bool ended;
  bool abandoned;               /* the thread is to free this */

  /* The thread's until it has ended. */
  uint64_t until;               /* the deadline of one connection */
  struct nbd_connections connections;
  int err;                      /* 0, or an errno with */
  char *error;
};

/*----------------------------------------------------------------------
 * URIs
 */

/* The queries that libnbd is given; the value of each is a path.  Newer versions
 * know others, of which some turn the verification of the server off.
 */
static const char *const known_queries[] = {
  "socket", "tls-certificates", "tls-psk-file", NULL,
};

/* What is wrong with the queries of the URI, or NULL. */
static char *
check_queries (const char *uri)
{
  const char *query = strchr (uri, '?');
  g_autoptr (GHashTable) seen =
    g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (GError) malformed = NULL;
  GUriParamsIter iter;
  char *name, *value;

  if (query == NULL)
    return NULL;
  g_uri_params_iter_init (&iter, query + 1, -1, "&;", G_URI_PARAMS_NONE);
  while (g_uri_params_iter_next (&iter, &name, &value, &malformed)) {
    g_free (value);
    if (!g_strv_contains (known_queries, name)) {
      g_autofree char *unknown = name;

      return g_strdup_printf ("the query '%s' is not known; known are "
                              "socket=PATH, tls-certificates=DIRECTORY and "
                              "tls-psk-file=FILE", unknown);
    }
    if (!g_hash_table_add (seen, name))
      return g_strdup_printf ("the query '%s' is given twice", name);
  }
  return malformed == NULL ? NULL :
    g_strdup ("what follows '?' must be name=value, with '&' between them");
}

/* The queries of a URI that has been checked. */
static GHashTable *
queries (const char *uri)
{
  const char *query = strchr (uri, '?');

  return g_uri_parse_params (query == NULL ? "" : query + 1, -1, "&;",
                             G_URI_PARAMS_NONE, NULL);
}

static char *
with_absolute_paths (const char *uri)
{
  const char *query = strchr (uri, '?');
  GString *absolute;
  GUriParamsIter iter;
  char *name, *value;

  if (query == NULL)
    return g_strdup (uri);
  absolute = g_string_new_len (uri, query - uri);
  g_uri_params_iter_init (&iter, query + 1, -1, "&;", G_URI_PARAMS_NONE);
  while (g_uri_params_iter_next (&iter, &name, &value, NULL)) {
    g_autofree char *file = g_canonicalize_filename (value, NULL);

    g_string_append_c (absolute, strchr (absolute->str, '?') ? '&' : '?');
    g_string_append_uri_escaped (absolute, name, NULL, FALSE);
    g_string_append_c (absolute, '=');
    g_string_append_uri_escaped (absolute, file, "/:", FALSE);
    g_free (name);
    g_free (value);
  }
  return g_string_free (absolute, FALSE);
}

/* libnbd encrypts, but authenticates nobody, if it finds no certificates,
 * or knows no host name that they could be for.
 */
static char *
check_tls (const char *uri, GHashTable *params)
{
  const char *certificates = g_hash_table_lookup (params, "tls-certificates");

  if (!g_str_has_prefix (uri, "nbds") ||
      g_hash_table_contains (params, "tls-psk-file"))
    return NULL;
  if (certificates == NULL)
    return g_strdup ("nbds needs the server's authentication: add "
                     "?tls-certificates=DIRECTORY or ?tls-psk-file=FILE");
  if (g_str_has_prefix (uri, "nbds+unix:"))
    return g_strdup ("the certificate of a server on a Unix socket cannot "
                     "be verified, as it has no host name; use "
                     "tls-psk-file=FILE");
  return NULL;
}

/* Without it libnbd would not verify the server.  It looks for it during
 * the handshake, so it is asked for before that and after it.
 */
static bool
has_ca_certificate (const char *uri, char **error)
{
  g_autoptr (GHashTable) params = queries (uri);
  const char *directory = g_hash_table_lookup (params, "tls-certificates");
  g_autofree char *file = NULL;

  if (!g_str_has_prefix (uri, "nbds") || directory == NULL)
    return true;
  file = g_build_filename (directory, "ca-cert.pem", NULL);
  if (access (file, R_OK) == 0)
    return true;
  *error = g_strdup_printf ("%s: %s; the certificate of the authority "
                            "that signed the server's has to be there",
                            file, strerror (errno));
  return false;
}

char *
nbd_check_uri (const char *uri, char **error)
{
  static const char *const schemes[] = {
    "nbd://", "nbds://", "nbd+unix://", "nbds+unix://",
  };
  g_autoptr (GHashTable) params = NULL;
  bool known = false;
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (schemes); i++)
    known = known || g_str_has_prefix (uri, schemes[i]);
  if (!known) {
    *error = g_strdup ("an NBD server is named by nbd://, nbds://, "
                       "nbd+unix:// or nbds+unix://");
    return NULL;
  }
  if (strchr (uri, '#') != NULL) {
    *error = g_strdup ("'#' would begin a fragment, which it cannot have; "
                       "write %23");
    return NULL;
  }
  *error = check_queries (uri);
  if (*error != NULL)
    return NULL;
  params = queries (uri);
  *error = check_tls (uri, params);
  return *error == NULL ? with_absolute_paths (uri) : NULL;
}

char *
nbd_export_of_uri (const char *uri)
{
  g_autoptr (GHashTable) params = queries (uri);
  const char *socket = g_hash_table_lookup (params, "socket");
  g_autoptr (GUri) parsed =
    g_uri_parse (uri, G_URI_FLAGS_NON_DNS, NULL);
  const char *path;

  if (parsed == NULL)           /* libnbd will say what is wrong with it */
    return g_strdup (uri);
  path = g_uri_get_path (parsed);
  return g_strdup_printf ("%s %s %d %s", socket != NULL ? socket : "",
                          g_uri_get_host (parsed),
                          g_uri_get_port (parsed) == -1 ? DEFAULT_PORT :
                          g_uri_get_port (parsed),
                          path[0] == '/' ? path + 1 : path);
}

/*----------------------------------------------------------------------
 * Waiting
 */

short
nbd_poll_events (struct nbd_handle *nbd)
{
  unsigned int direction = nbd_aio_get_direction (nbd);

  return (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
    (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
}

bool
nbd_has_failed (struct nbd_handle *nbd)
{
  return nbd_aio_is_dead (nbd) || nbd_aio_is_closed (nbd);
}

/* One notification at a time, since it may change what the other means.
 * An error is met by what libnbd wants to do.
 */
bool
nbd_notify (struct nbd_handle *nbd, const struct pollfd *fd)
{
  const short error = POLLHUP | POLLERR;
  int r = 0;

  if (fd->events & POLLIN && fd->revents & (POLLIN | error))
    r = nbd_aio_notify_read (nbd);
  else if (fd->events & POLLOUT && fd->revents & (POLLOUT | error))
    r = nbd_aio_notify_write (nbd);
  return r == 0 && !nbd_has_failed (nbd);
}

int
nbd_poll_timeout (uint64_t until)
{
  uint64_t now = clock_now ();
  uint64_t msec = until > now ? (until - now + 999999) / 1000000 : 0;

  return MIN (msec, 60000);
}

/*----------------------------------------------------------------------
 * In the thread of an attempt
 */

/* What libnbd says, and the remedy if that is not plain from it. */
static void
failed (struct nbd_attempt *a, int err, const char *text)
{
  const char *hint = "";

  if (strstr (text, "certificate verification") != NULL)
    hint = "; the server's certificate is not signed by the authority in "
      "ca-cert.pem, has expired, or is for another host name";
  a->err = err != 0 ? err : EIO;
  a->error = g_strdup_printf ("%s%s", text, hint);
}

static void
failed_in_libnbd (struct nbd_attempt *a)
{
  failed (a, nbd_get_errno (), nbd_get_error ());
}

/* Where call_off can find the socket: a descriptor of our own, as libnbd may
 * close its at any time.
 */
static void
set_fd (struct nbd_attempt *a, int fd)
{
  pthread_mutex_lock (&a->lock);
  if (a->fd >= 0)
    close (a->fd);
  a->fd = fd >= 0 ? fcntl (fd, F_DUPFD_CLOEXEC, 0) : -1;
  pthread_mutex_unlock (&a->lock);
}

static struct nbd_handle *
begin_one (struct nbd_attempt *a)
{
  struct nbd_handle *nbd = nbd_create ();

  if (nbd == NULL ||
      nbd_set_uri_allow_local_file (nbd, true) == -1 ||
      nbd_add_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
      nbd_aio_connect_uri (nbd, a->uri) == -1) {
    failed_in_libnbd (a);
    nbd_close (nbd);
    return NULL;
  }
  set_fd (a, nbd_aio_get_fd (nbd));
  return nbd;
}

/* Let the operating system notice too when the other side is gone, also
 * when nothing is in flight.
 */
static void
watch_tcp (int fd, unsigned int timeout)
{
  const struct { int level, name, value; } options[] = {
    { SOL_SOCKET, SO_KEEPALIVE, 1 },
    { IPPROTO_TCP, TCP_KEEPIDLE, CLAMP (timeout / 2, 1, 32767) },
    { IPPROTO_TCP, TCP_KEEPINTVL, CLAMP (timeout / 6, 1, 32767) },
    { IPPROTO_TCP, TCP_KEEPCNT, 3 },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, (int) MIN (timeout, 1000000) * 1000 },
  };
  int domain;
  socklen_t length = sizeof domain;
  size_t i;

  if (getsockopt (fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == -1 ||
      (domain != AF_INET && domain != AF_INET6))
    return;
  for (i = 0; i < G_N_ELEMENTS (options); i++)
    setsockopt (fd, options[i].level, options[i].name, &options[i].value,
                sizeof options[i].value);
}

/* Wait until the connection can be used.  False if it cannot; then a->err
 * is set, unless the attempt was called off.
 */
static bool
wait_ready (struct nbd_attempt *a, struct nbd_handle *nbd)
{
  struct pollfd fds[2];

  while (!nbd_aio_is_ready (nbd)) {
    fds[0] = (struct pollfd) {
      .fd = nbd_aio_get_fd (nbd), .events = nbd_poll_events (nbd),
    };
    fds[1] = (struct pollfd) { .fd = a->cancel_fd, .events = POLLIN };
    set_fd (a, fds[0].fd);
    if (poll (fds, 2, nbd_poll_timeout (a->until)) == -1)
      continue;
    if (fds[1].revents != 0)
      return false;
    if (clock_now () >= a->until) {
      a->err = ETIMEDOUT;
      a->error = g_strdup_printf ("the server does not answer within %u "
                                  "seconds", a->timeout);
      return false;
    }
    if (fds[0].revents != 0 && !nbd_notify (nbd, &fds[0])) {
      failed_in_libnbd (a);
      return false;
    }
  }
  return true;
}

static bool
check_ca (struct nbd_attempt *a)
{
  if (has_ca_certificate (a->uri, &a->error))
    return true;
  a->err = ENOENT;
  return false;
}

/* Make one more connection.  False if that failed. */
static bool
connect_one (struct nbd_attempt *a)
{
  struct nbd_connections *c = &a->connections;
  struct nbd_handle *nbd = check_ca (a) ? begin_one (a) : NULL;
  int fd = -1;

  if (nbd == NULL)
    return false;
  if (wait_ready (a, nbd) && check_ca (a)) {
    fd = fcntl (nbd_aio_get_fd (nbd), F_DUPFD_CLOEXEC, 0);
    if (fd == -1)
      failed (a, errno, strerror (errno));
  }
  set_fd (a, -1);
  if (fd == -1) {
    nbd_close (nbd);
    return false;
  }
  watch_tcp (fd, a->timeout);
  c->nbd[c->n] = nbd;
  c->fds[c->n++] = fd;
  return true;
}

static void
drop_last (struct nbd_connections *c)
{
  c->n--;
  nbd_close (c->nbd[c->n]);
  close (c->fds[c->n]);
}

/* Returns NULL, or what is wrong with it. */
static const char *
describe (struct nbd_handle *nbd, struct nbd_export *export)
{
  int64_t size = nbd_get_size (nbd);
  int64_t min = nbd_get_block_size (nbd, LIBNBD_SIZE_MINIMUM);
  int64_t max = nbd_get_block_size (nbd, LIBNBD_SIZE_MAXIMUM);

  if (size < 0)
    return nbd_get_error ();
  if (min > (int64_t) MAX_BLOCK_SIZE)
    return "its minimum block size is larger than 4096";
  min = MAX (min, DM_IO_SECTOR_SIZE);
  max = max > 0 ? MIN (max, MAX_TRANSFER) : MAX_TRANSFER;
  if ((min & (min - 1)) != 0 || max < min)
    return "its block sizes are not possible";

  *export = (struct nbd_export) {
    .size = size,
    .block_size = min,
    .max_transfer = max - max % min,
    .read_only = nbd_is_read_only (nbd) > 0,
    .rotational = nbd_is_rotational (nbd) > 0,
    .can_flush = nbd_can_flush (nbd) > 0,
    .can_fua = nbd_can_fua (nbd) > 0,
    .can_zero = nbd_can_zero (nbd) > 0,
    .can_fast_zero = nbd_can_fast_zero (nbd) > 0,
    .can_cache = nbd_can_cache (nbd) > 0,
    .can_block_status =
      nbd_can_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0,
    .can_multi_conn = nbd_can_multi_conn (nbd) > 0,
  };
  return NULL;
}

bool
nbd_same_export (const struct nbd_export *a, const struct nbd_export *b)
{
  return a->size == b->size && a->block_size == b->block_size &&
    a->max_transfer == b->max_transfer && a->read_only == b->read_only &&
    a->can_flush == b->can_flush && a->can_fua == b->can_fua &&
    a->can_zero == b->can_zero && a->can_fast_zero == b->can_fast_zero &&
    a->can_cache == b->can_cache &&
    a->can_block_status == b->can_block_status &&
    a->can_multi_conn == b->can_multi_conn;
}

/* More connections, if they can be had. */
static void
connect_others (struct nbd_attempt *a)
{
  struct nbd_connections *c = &a->connections;
  struct nbd_export export;

  while (c->export.can_multi_conn && c->n < NBD_CONNECTIONS) {
    if (!connect_one (a))
      break;
    if (describe (c->nbd[c->n - 1], &export) != NULL ||
        !nbd_same_export (&export, &c->export)) {
      drop_last (c);
      break;
    }
  }
  if (a->err != 0)
    g_debug ("%s: only %u connections: %s", a->uri, c->n, a->error);
  g_clear_pointer (&a->error, g_free);
  a->err = 0;
}

static void
connect_all (struct nbd_attempt *a)
{
  struct nbd_connections *c = &a->connections;
  uint64_t begun = clock_now (), now;
  const char *wrong;

  a->until = a->deadline;
  if (!connect_one (a))
    return;
  wrong = describe (c->nbd[0], &c->export);
  if (wrong == NULL) {
    now = clock_now ();
    a->until = MIN (a->deadline, now +
                    MAX (OTHERS_NSEC, OTHERS_TIMES * (now - begun)));
    connect_others (a);
  }
  else {
    failed (a, EINVAL, wrong);
    nbd_connections_close (c);
  }
}

static void
free_attempt (struct nbd_attempt *a)
{
  g_free (a->error);
  close (a->cancel_fd);
  pthread_cond_destroy (&a->has_ended);
  pthread_mutex_destroy (&a->lock);
  g_free (a->uri);
  g_free (a);
}

static void *
attempt_thread (void *arg)
{
  struct nbd_attempt *a = arg;
  bool abandoned;

  connect_all (a);
  pthread_mutex_lock (&a->lock);
  a->ended = true;
  abandoned = a->abandoned;
  if (!abandoned)
    eventfd_write (a->wake_fd, 1);
  pthread_cond_signal (&a->has_ended);
  pthread_mutex_unlock (&a->lock);

  if (abandoned) {
    nbd_connections_abort (&a->connections);
    free_attempt (a);
  }
  return NULL;
}

/*----------------------------------------------------------------------
 * In the thread that wants to connect
 */

struct nbd_attempt *
nbd_attempt_begin (const char *uri, unsigned int timeout, int wake_fd)
{
  struct nbd_attempt *a = g_new0 (struct nbd_attempt, 1);
  pthread_condattr_t monotonic;
  int err;

  a->uri = g_strdup (uri);
  a->timeout = timeout;
  a->deadline = clock_now () + timeout * NSEC_PER_SEC;
  a->wake_fd = wake_fd;
  a->fd = -1;
  pthread_mutex_init (&a->lock, NULL);
  pthread_condattr_init (&monotonic);
  pthread_condattr_setclock (&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init (&a->has_ended, &monotonic);
  pthread_condattr_destroy (&monotonic);

  a->cancel_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  err = a->cancel_fd == -1 ? errno :
    create_thread (&a->thread, attempt_thread, a);
  if (err != 0) {
    free_attempt (a);
    errno = err;
    return NULL;
  }
  return a;
}

uint64_t
nbd_attempt_deadline (const struct nbd_attempt *a)
{
  return (a->called_off_at != 0 ? a->called_off_at : a->deadline) + GRACE_NSEC;
}

static void
call_off (struct nbd_attempt *a)
{
  a->called_off_at = clock_now ();
  pthread_mutex_lock (&a->lock);
  eventfd_write (a->cancel_fd, 1);
  if (a->fd >= 0)
    shutdown (a->fd, SHUT_RDWR);
  pthread_mutex_unlock (&a->lock);
}

bool
nbd_attempt_ended (struct nbd_attempt *a)
{
  bool ended;

  pthread_mutex_lock (&a->lock);
  ended = a->ended;
  pthread_mutex_unlock (&a->lock);
  if (ended || clock_now () < nbd_attempt_deadline (a))
    return ended;
  if (a->called_off_at != 0)
    return true;                /* it hangs */
  call_off (a);
  return false;
}

static void
wait_until (struct nbd_attempt *a, uint64_t time)
{
  const struct timespec until = {
    .tv_sec = time / NSEC_PER_SEC, .tv_nsec = time % NSEC_PER_SEC,
  };

  while (!a->ended &&
         pthread_cond_timedwait (&a->has_ended, &a->lock,
                                 &until) != ETIMEDOUT)
    ;
}

void
nbd_attempt_wait (struct nbd_attempt *a)
{
  pthread_mutex_lock (&a->lock);
  wait_until (a, nbd_attempt_deadline (a));
  pthread_mutex_unlock (&a->lock);
}

int
nbd_attempt_end (struct nbd_attempt *a, struct nbd_connections *connections,
                 char **error)
{
  unsigned int timeout = a->timeout;
  int err = ETIMEDOUT;
  bool ended;

  if (!nbd_attempt_ended (a) && a->called_off_at == 0)
    call_off (a);
  pthread_mutex_lock (&a->lock);
  wait_until (a, nbd_attempt_deadline (a));
  ended = a->ended;
  a->abandoned = !ended;
  if (!ended)
    pthread_detach (a->thread);
  pthread_mutex_unlock (&a->lock);

  *connections = (struct nbd_connections) { 0 };
  *error = NULL;
  if (ended) {
    pthread_join (a->thread, NULL);
    *connections = a->connections;
    if (connections->n > 0)
      err = 0;
    else if (a->called_off_at == 0) {
      err = a->err;
      *error = g_steal_pointer (&a->error);
    }
    free_attempt (a);
  }
  if (err != 0 && *error == NULL)
    *error = g_strdup_printf ("the server does not answer within %u seconds, "
                              "or its name cannot be resolved", timeout);
  return err;
}
