/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Threads: one accepts, and each connection has one, which does its
 * commands one after another.
 *
 * server->lock owns all that changes.  It is also held while a reply is
 * sent, so that replies do not mix; the client always reads.
 */

#include <config.h>

#include <endian.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "nbd-server.h"
#include "test-util.h"

#define MAX_CONNECTIONS 256

/* The protocol. */
#define NBDMAGIC UINT64_C (0x4e42444d41474943)
#define IHAVEOPT UINT64_C (0x49484156454f5054)
#define OPTION_REPLY_MAGIC UINT64_C (0x3e889045565a9)
#define REQUEST_MAGIC 0x25609513
#define SIMPLE_REPLY_MAGIC 0x67446698
#define STRUCTURED_REPLY_MAGIC 0x668e33ef
#define FIXED_NEWSTYLE_NO_ZEROES 3

enum { OPT_GO = 7, OPT_STRUCTURED_REPLY = 8, OPT_SET_META_CONTEXT = 10 };
enum { REP_ACK = 1, REP_INFO = 3, REP_META_CONTEXT = 4 };
#define REP_ERR_UNSUP (UINT32_C (1) << 31 | 1)
enum { INFO_EXPORT = 0, INFO_BLOCK_SIZE = 3 };
enum { CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_STATUS = 5, CHUNK_ERROR = 32769 };
#define CHUNK_DONE 1
#define CONTEXT_ID 42

struct request {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint64_t offset;
  uint32_t length;
} __attribute__ ((__packed__));

struct connection {
  struct nbd_server *server;
  unsigned int index;
  pthread_t thread;
  int fd;
  struct nbd_server_options options; /* when it began */
  bool structured, meta_context; /* what was negotiated */
};

struct nbd_server {
  int listener;
  pthread_t thread;

  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct nbd_server_options options;
  unsigned char *data;
  bool stop, accept, gate_closed;
  struct connection *connections[MAX_CONNECTIONS];
  unsigned int attempts, ready; /* the first is the number of the above */
  struct nbd_server_fault faults[SERVER_MAX_FAULTS];
  unsigned int seen[SERVER_MAX_FAULTS], num_faults;
  struct nbd_server_event events[SERVER_MAX_EVENTS];
  struct nbd_server_event found[SERVER_MAX_EVENTS]; /* by nbd_server_trace */
  size_t num_events;
  const struct nbd_server_extent *extents;
  unsigned int reverse;         /* replies that are to be kept */
  GPtrArray *kept;              /* of them: connection, reply, ... */
};

/*----------------------------------------------------------------------
 * Bytes
 */

static bool
receive (struct connection *c, void *buf, size_t length)
{
  return length == 0 || recv (c->fd, buf, length, MSG_WAITALL) ==
    (ssize_t) length;
}

static void
transmit (struct connection *c, const void *buf, size_t length)
{
  const char *p = buf;
  ssize_t r;

  for (; length > 0; p += r, length -= r) {
    r = send (c->fd, p, length, MSG_NOSIGNAL);
    if (r <= 0)
      return;                   /* the client has gone */
  }
}

static void
add (GByteArray *to, const void *bytes, size_t length)
{
  g_byte_array_append (to, bytes, length);
}

static void
add16 (GByteArray *to, uint16_t n)
{
  n = htobe16 (n);
  add (to, &n, sizeof n);
}

static void
add32 (GByteArray *to, uint32_t n)
{
  n = htobe32 (n);
  add (to, &n, sizeof n);
}

static void
add64 (GByteArray *to, uint64_t n)
{
  n = htobe64 (n);
  add (to, &n, sizeof n);
}

static void
transmit_bytes (struct connection *c, GByteArray *bytes)
{
  transmit (c, bytes->data, bytes->len);
  g_byte_array_unref (bytes);
}

/*----------------------------------------------------------------------
 * The handshake
 */

static void
begin_option_reply (GByteArray *to, uint32_t option, uint32_t type,
                    uint32_t length)
{
  add64 (to, OPTION_REPLY_MAGIC);
  add32 (to, option);
  add32 (to, type);
  add32 (to, length);
}

static void
add_export (struct connection *c, GByteArray *to)
{
  const struct nbd_server_options *o = &c->options;

  begin_option_reply (to, OPT_GO, REP_INFO, 12);
  add16 (to, INFO_EXPORT);
  add64 (to, o->size);
  add16 (to, o->flags | 1);
  if (o->max_block == 0)
    return;
  begin_option_reply (to, OPT_GO, REP_INFO, 14);
  add16 (to, INFO_BLOCK_SIZE);
  add32 (to, o->min_block);
  add32 (to, MIN (MAX (o->min_block, 4096), o->max_block));
  add32 (to, o->max_block);
}

static void
answer_option (struct connection *c, uint32_t option)
{
  static const char context[] = "base:allocation";
  GByteArray *to = g_byte_array_new ();
  uint32_t type = REP_ACK;

  if (option == OPT_GO)
    add_export (c, to);
  else if (option == OPT_STRUCTURED_REPLY && c->options.structured)
    c->structured = true;
  else if (option == OPT_SET_META_CONTEXT && c->structured) {
    c->meta_context = true;
    begin_option_reply (to, option, REP_META_CONTEXT, 4 + strlen (context));
    add32 (to, CONTEXT_ID);
    add (to, context, strlen (context));
  }
  else
    type = REP_ERR_UNSUP;
  begin_option_reply (to, option, type, 0);
  transmit_bytes (c, to);
}

/* Before the client can know. */
static void
count_ready (struct nbd_server *s)
{
  pthread_mutex_lock (&s->lock);
  s->ready++;
  pthread_mutex_unlock (&s->lock);
}

/* False if it came to nothing. */
static bool
shake_hands (struct connection *c)
{
  GByteArray *hello = g_byte_array_new ();
  struct { uint64_t magic; uint32_t option, length; } __attribute__
    ((__packed__)) header;
  uint32_t flags;
  char payload[1024];

  add64 (hello, NBDMAGIC);
  add64 (hello, IHAVEOPT);
  add16 (hello, FIXED_NEWSTYLE_NO_ZEROES);
  transmit_bytes (c, hello);
  if (!receive (c, &flags, sizeof flags))
    return false;
  g_assert_cmpuint (be32toh (flags), ==, FIXED_NEWSTYLE_NO_ZEROES);
  do {
    if (!receive (c, &header, sizeof header))
      return false;
    g_assert_cmphex (be64toh (header.magic), ==, IHAVEOPT);
    header.length = be32toh (header.length);
    header.option = be32toh (header.option);
    g_assert_cmpuint (header.length, <=, sizeof payload);
    if (!receive (c, payload, header.length))
      return false;
    if (header.option == OPT_GO)
      count_ready (c->server);
    answer_option (c, header.option);
  } while (header.option != OPT_GO);
  return true;
}

/*----------------------------------------------------------------------
 * Commands.  Called with the lock held.
 */

/* It is in the protocol, and was offered. */
static void
check_request (const struct connection *c, const struct request *r)
{
  const unsigned int can = c->options.flags;
  const uint32_t block = MAX (c->options.min_block, 1);
  unsigned int op = 1U << r->type, flags = 0;

  g_assert_cmpuint (r->type, <=, 7);
  if (op & (SERVER_CHANGES | SERVER_FLUSH))
    g_assert_false (can & SERVER_READ_ONLY);
  g_assert_true (op != SERVER_FLUSH || can & SERVER_CAN_FLUSH);
  g_assert_true (op != SERVER_TRIM || can & SERVER_CAN_TRIM);
  g_assert_true (op != SERVER_CACHE || can & SERVER_CAN_CACHE);
  g_assert_true (op != SERVER_ZERO || can & SERVER_CAN_ZERO);
  g_assert_true (op != SERVER_STATUS || c->meta_context);
  if (op & SERVER_CHANGES && can & SERVER_CAN_FUA)
    flags |= SERVER_FUA;
  if (op == SERVER_ZERO)
    flags |= SERVER_NO_HOLE;
  if (op == SERVER_ZERO && can & SERVER_CAN_FAST_ZERO)
    flags |= SERVER_FAST_ZERO;
  if (op == SERVER_STATUS)
    flags |= SERVER_REQ_ONE;
  g_assert_cmphex (r->flags & ~flags, ==, 0);

  if (op == SERVER_FLUSH) {
    g_assert_cmpuint (r->offset, ==, 0);
    g_assert_cmpuint (r->length, ==, 0);
    return;
  }
  g_assert_cmpuint (r->length, >, 0);
  g_assert_cmpuint (r->offset % block, ==, 0);
  g_assert_cmpuint (r->length % block, ==, 0);
  g_assert_cmpuint (r->offset, <=, c->options.size);
  g_assert_cmpuint (r->length, <=, c->options.size - r->offset);
  if (op & (SERVER_READ | SERVER_WRITE) && c->options.max_block != 0)
    g_assert_cmpuint (r->length, <=, c->options.max_block);
}

/* What the request is for those who write a script or read the trace. */
static unsigned int
op_of (const struct connection *c, const struct request *r)
{
  unsigned int block = MAX (c->options.min_block, SECTOR);

  if (1U << r->type == SERVER_STATUS && r->offset == 0 &&
      r->length == block && r->flags == SERVER_REQ_ONE)
    return SERVER_PROBE;
  return 1U << r->type;
}

static void
record (struct connection *c, const struct request *r)
{
  struct nbd_server *s = c->server;

  g_assert_cmpuint (s->num_events, <, SERVER_MAX_EVENTS);
  s->events[s->num_events++] = (struct nbd_server_event) {
    op_of (c, r), r->flags, r->offset, r->length, c->index,
  };
  pthread_cond_broadcast (&s->changed);
}

static const struct nbd_server_fault *
find_fault (struct connection *c, const struct request *r)
{
  struct nbd_server *s = c->server;
  static const struct nbd_server_fault none;
  const struct nbd_server_fault *f;
  unsigned int i;

  for (i = 0; i < s->num_faults; i++) {
    f = &s->faults[i];
    if (!(f->ops & op_of (c, r)) ||
        (f->offset != 0 && (f->offset < r->offset ||
                            f->offset - r->offset >= r->length)))
      continue;
    if (s->seen[i]++ >= f->after &&
        (f->times == 0 || s->seen[i] <= f->after + f->times))
      return f;
  }
  return &none;
}

static void
begin_chunk (GByteArray *to, const struct request *r, uint16_t type,
             uint32_t length)
{
  add32 (to, STRUCTURED_REPLY_MAGIC);
  add16 (to, CHUNK_DONE);
  add16 (to, type);
  add64 (to, r->cookie);
  add32 (to, length);
}

static void
add_simple (GByteArray *to, const struct request *r, uint32_t error)
{
  add32 (to, SIMPLE_REPLY_MAGIC);
  add32 (to, error);
  add64 (to, r->cookie);
}

static void
add_read (struct connection *c, GByteArray *to, const struct request *request,
          bool half)
{
  struct request shorter = *request, *r = &shorter;

  if (half)
    r->length /= 2;
  if (c->structured) {
    begin_chunk (to, r, CHUNK_DATA, 8 + r->length);
    add64 (to, r->offset);
  }
  else
    add_simple (to, r, 0);
  add (to, c->server->data + r->offset, r->length);
}

/* As many extents as touch the range, the last not cut; or one. */
static void
add_status (struct connection *c, GByteArray *to, const struct request *r)
{
  static const struct nbd_server_extent data[] = { { SECTOR, 0 }, { 0, 0 } };
  const struct nbd_server_extent *e = op_of (c, r) == SERVER_PROBE ?
    data : c->server->extents;
  g_autoptr (GByteArray) list = g_byte_array_new ();
  uint64_t end = 0, at = r->offset;

  for (; e->length > 0 && at < r->offset + r->length; e++) {
    end += e->length;
    if (end <= at)
      continue;
    if (r->flags & SERVER_REQ_ONE && at != r->offset)
      break;
    if (r->flags & SERVER_REQ_ONE)
      end = MIN (end, r->offset + r->length);
    add32 (list, end - at);
    add32 (list, e->flags);
    at = end;
  }
  begin_chunk (to, r, CHUNK_STATUS, 4 + list->len);
  add32 (to, CONTEXT_ID);
  add (to, list->data, list->len);
}

static void
add_error (struct connection *c, GByteArray *to, const struct request *r,
           uint32_t error)
{
  if (!c->structured || !(1U << r->type & (SERVER_READ | SERVER_STATUS))) {
    add_simple (to, r, error);
    return;
  }
  begin_chunk (to, r, CHUNK_ERROR, 6);
  add32 (to, error);
  add16 (to, 0);
}

static void
add_answer (struct connection *c, GByteArray *to, const struct request *r,
            const unsigned char *payload, bool half)
{
  unsigned char *at = c->server->data + r->offset;

  switch (1U << r->type) {
  case SERVER_READ:
    add_read (c, to, r, half);
    return;
  case SERVER_STATUS:
    add_status (c, to, r);
    return;
  case SERVER_WRITE:
    memcpy (at, payload, r->length);
    break;
  case SERVER_ZERO: case SERVER_TRIM:
    memset (at, 0, r->length);
    break;
  }
  add_simple (to, r, 0);
}

/* Send the reply now or, with others, later. */
static void
reply (struct connection *c, GByteArray *bytes)
{
  struct nbd_server *s = c->server;

  if (s->reverse == 0) {
    transmit_bytes (c, bytes);
    return;
  }
  g_ptr_array_add (s->kept, c);
  g_ptr_array_add (s->kept, bytes);
  if (s->kept->len < 2 * s->reverse)
    return;
  s->reverse = 0;
  while (s->kept->len > 0) {
    bytes = g_ptr_array_steal_index (s->kept, s->kept->len - 1);
    c = g_ptr_array_steal_index (s->kept, s->kept->len - 1);
    transmit_bytes (c, bytes);
  }
}

/* Called with the lock held, but it does not keep it. */
static void
hang_up_and_wait (struct connection *c)
{
  pthread_mutex_unlock (&c->server->lock);
  shutdown (c->fd, SHUT_RDWR);
  g_usleep (SERVER_LATE_US);
  pthread_mutex_lock (&c->server->lock);
}

/* False if the connection is to end. */
static bool
serve (struct connection *c, const struct request *r,
       const unsigned char *payload)
{
  const struct nbd_server_fault *fault = find_fault (c, r);
  GByteArray *bytes;

  if (fault->what == SERVER_HANGS_UP)
    return false;
  if (fault->what == SERVER_HANGS_UP_FIRST)
    hang_up_and_wait (c);
  bytes = g_byte_array_new ();
  if (fault->what == SERVER_SAYS_ERROR)
    add_error (c, bytes, r, fault->error);
  else
    add_answer (c, bytes, r, payload, fault->what == SERVER_SAYS_HALF);
  if (fault->what == SERVER_SAYS_NOTHING) {
    g_byte_array_unref (bytes);
    return true;
  }
  if (fault->what == SERVER_HANGS_UP_IN_REPLY)
    g_byte_array_set_size (bytes, bytes->len - 3);
  if (fault->what == SERVER_SAYS_GARBAGE)
    memset (bytes->data, 0x5a, 4);
  reply (c, bytes);
  return fault->what != SERVER_HANGS_UP_IN_REPLY;
}

/*----------------------------------------------------------------------
 * Connections
 */

/* False if the connection has ended. */
static bool
next_request (struct connection *c)
{
  struct nbd_server *s = c->server;
  g_autofree unsigned char *payload = NULL;
  struct request r;
  bool go_on;

  if (!receive (c, &r, sizeof r))
    return false;
  g_assert_cmphex (be32toh (r.magic), ==, REQUEST_MAGIC);
  r.flags = be16toh (r.flags);
  r.type = be16toh (r.type);
  r.cookie = be64toh (r.cookie);
  r.offset = be64toh (r.offset);
  r.length = be32toh (r.length);
  if (1U << r.type == SERVER_WRITE) {
    payload = g_malloc (r.length);
    if (!receive (c, payload, r.length))
      return false;
  }

  pthread_mutex_lock (&s->lock);
  go_on = 1U << r.type != SERVER_DISCONNECT;
  if (go_on) {
    check_request (c, &r);
    record (c, &r);
    while (s->gate_closed && !s->stop)
      pthread_cond_wait (&s->changed, &s->lock);
    go_on = serve (c, &r, payload);
  }
  pthread_mutex_unlock (&s->lock);
  return go_on;
}

static void *
serve_connection (void *context)
{
  struct connection *c = context;

  if (shake_hands (c))
    while (next_request (c))
      ;
  /* Closed later, lest another connection gets the number. */
  shutdown (c->fd, SHUT_RDWR);
  return NULL;
}

static void
begin_connection (struct nbd_server *s, int fd)
{
  struct connection *c = g_new0 (struct connection, 1);

  pthread_mutex_lock (&s->lock);
  g_assert_cmpuint (s->attempts, <, MAX_CONNECTIONS);
  *c = (struct connection) {
    .server = s, .index = s->attempts, .fd = fd, .options = s->options,
  };
  s->connections[s->attempts++] = c;
  if (s->stop || !s->accept)
    shutdown (fd, SHUT_RDWR);
  g_assert_cmpint (pthread_create (&c->thread, NULL, serve_connection, c),
                   ==, 0);
  pthread_mutex_unlock (&s->lock);
}

static void *
accept_all (void *context)
{
  struct nbd_server *s = context;
  int fd;

  while ((fd = accept (s->listener, NULL, NULL)) != -1)
    begin_connection (s, fd);
  return NULL;
}

struct nbd_server *
nbd_server_start (const char *path, const struct nbd_server_options *options)
{
  struct nbd_server *s = g_new0 (struct nbd_server, 1);
  struct sockaddr_un addr = { .sun_family = AF_UNIX };

  s->options = *options;
  s->accept = true;
  s->data = g_malloc0 (options->size);
  s->kept = g_ptr_array_new ();
  pthread_mutex_init (&s->lock, NULL);
  pthread_cond_init (&s->changed, NULL);
  g_assert_cmpuint (g_strlcpy (addr.sun_path, path, sizeof addr.sun_path),
                    <, sizeof addr.sun_path);
  s->listener = socket (AF_UNIX, SOCK_STREAM, 0);
  g_assert_cmpint (bind (s->listener, (struct sockaddr *) &addr,
                         sizeof addr), ==, 0);
  g_assert_cmpint (listen (s->listener, 10), ==, 0);
  g_assert_cmpint (pthread_create (&s->thread, NULL, accept_all, s), ==, 0);
  return s;
}

void
nbd_server_stop (struct nbd_server *s)
{
  unsigned int i;

  pthread_mutex_lock (&s->lock);
  s->stop = true;
  pthread_cond_broadcast (&s->changed);
  pthread_mutex_unlock (&s->lock);
  shutdown (s->listener, SHUT_RDWR);
  pthread_join (s->thread, NULL);
  nbd_server_hang_up (s, false);
  for (i = 0; i < s->attempts; i++) {
    pthread_join (s->connections[i]->thread, NULL);
    close (s->connections[i]->fd);
    g_free (s->connections[i]);
  }
  close (s->listener);
  for (i = 1; i < s->kept->len; i += 2)
    g_byte_array_unref (s->kept->pdata[i]);
  g_ptr_array_unref (s->kept);
  pthread_cond_destroy (&s->changed);
  pthread_mutex_destroy (&s->lock);
  g_free (s->data);
  g_free (s);
}

/*----------------------------------------------------------------------
 * The test's side
 */

void
nbd_server_set_options (struct nbd_server *s,
                        const struct nbd_server_options *options)
{
  pthread_mutex_lock (&s->lock);
  if (options->size > s->options.size)
    s->data = g_realloc (s->data, options->size);
  s->options = *options;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_accept (struct nbd_server *s, bool accept)
{
  pthread_mutex_lock (&s->lock);
  s->accept = accept;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_hang_up (struct nbd_server *s, bool accept)
{
  unsigned int i;

  pthread_mutex_lock (&s->lock);
  s->accept = accept;
  for (i = 0; i < s->attempts; i++)
    shutdown (s->connections[i]->fd, SHUT_RDWR);
  pthread_mutex_unlock (&s->lock);
}

static unsigned int
look_at (struct nbd_server *s, const unsigned int *number)
{
  unsigned int n;

  pthread_mutex_lock (&s->lock);
  n = *number;
  pthread_mutex_unlock (&s->lock);
  return n;
}

unsigned int
nbd_server_connections (struct nbd_server *s)
{
  return look_at (s, &s->ready);
}

unsigned int
nbd_server_attempts (struct nbd_server *s)
{
  return look_at (s, &s->attempts);
}

void
nbd_server_fault (struct nbd_server *s, const struct nbd_server_fault *fault)
{
  pthread_mutex_lock (&s->lock);
  g_assert_cmpuint (s->num_faults, <, SERVER_MAX_FAULTS);
  s->seen[s->num_faults] = 0;
  s->faults[s->num_faults++] = *fault;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_clear_faults (struct nbd_server *s)
{
  pthread_mutex_lock (&s->lock);
  s->num_faults = 0;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_reverse (struct nbd_server *s, unsigned int n)
{
  pthread_mutex_lock (&s->lock);
  s->reverse = n;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_close_gate (struct nbd_server *s, bool closed)
{
  pthread_mutex_lock (&s->lock);
  s->gate_closed = closed;
  pthread_cond_broadcast (&s->changed);
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_set_extents (struct nbd_server *s,
                        const struct nbd_server_extent *extents)
{
  pthread_mutex_lock (&s->lock);
  s->extents = extents;
  pthread_mutex_unlock (&s->lock);
}

unsigned char *
nbd_server_data (struct nbd_server *s)
{
  unsigned char *data;

  pthread_mutex_lock (&s->lock);
  data = s->data;
  pthread_mutex_unlock (&s->lock);
  return data;
}

/* Called with the lock held. */
static size_t
find_events (struct nbd_server *s, unsigned int ops)
{
  size_t i, n = 0;

  for (i = 0; i < s->num_events; i++)
    if (s->events[i].op & ops)
      s->found[n++] = s->events[i];
  return n;
}

const struct nbd_server_event *
nbd_server_trace (struct nbd_server *s, unsigned int ops, size_t n)
{
  g_assert_cmpuint (nbd_server_count (s, ops), ==, n);
  return s->found;
}

size_t
nbd_server_count (struct nbd_server *s, unsigned int ops)
{
  size_t n;

  pthread_mutex_lock (&s->lock);
  n = find_events (s, ops);
  pthread_mutex_unlock (&s->lock);
  return n;
}

void
nbd_server_clear_trace (struct nbd_server *s)
{
  pthread_mutex_lock (&s->lock);
  s->num_events = 0;
  pthread_mutex_unlock (&s->lock);
}

void
nbd_server_await (struct nbd_server *s, unsigned int ops, size_t n)
{
  struct timespec deadline = test_deadline ();

  pthread_mutex_lock (&s->lock);
  while (find_events (s, ops) < n)
    g_assert_cmpint (pthread_cond_timedwait (&s->changed, &s->lock,
                                             &deadline), ==, 0);
  pthread_mutex_unlock (&s->lock);
}
