/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A load on a server that is going to crash, and the check of what is there
 * afterwards.
 *
 * crash-load [OPTION...] STATE URI
 *   writes, reads and flushes for some seconds, and leaves in the file STATE
 *   what each block may hold after a crash.  What they may hold in the
 *   beginning is also there; if there is no such file, all are zero.
 * crash-load --check [OPTION...] STATE URI
 *   reads all, several times and on several connections, each of which
 *   must see the same, and flushes; in STATE is then what was seen.
 *
 * What "may" means is in crash-model.h.
 *
 * -k        the server may be killed; the load ends then
 * -a        what is acknowledged must not get lost, even if it is not flushed
 * -l        the volume may lose what is not flushed, while it is used; with
 *           --check, may have lost it before
 * -e        requests may fail with EIO
 * -c, -d    connections, and requests in flight on each
 * -t, -s    seconds, and the seed of the random numbers
 * -r        only read; no block may change
 *
 * Threads: one for each connection; it alone uses the handle, and callbacks
 * run in its nbd_poll.  `lock` owns the model and the counters.
 */

#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "crash-model.h"

#define MAX_BLOCKS 256          /* of one request */
#define HOT_BLOCKS 64
#define REPLY_MS 120000         /* no reply for so long: it hangs */
#define RUNNING 200             /* requests until the load is said to run */

enum kind { READ, WRITE, ZERO, TRIM, FLUSH, NR_KINDS };
static const char *const kind_names[NR_KINDS] =
  { "read", "write", "zero", "trim", "flush" };

struct request {
  struct connection *connection;
  bool busy;
  enum kind kind;
  uint32_t flags;
  uint64_t sent;                /* nsec */
  struct access access;
  void *buffer;
};

struct connection {
  pthread_t thread;
  struct nbd_handle *nbd;
  bool refused;                 /* a request has failed */
  uint64_t random;              /* state of the generator */
  struct request *requests;     /* depth of them */
};

static unsigned nr_connections = 4, depth = 16, seconds = 10;
static bool may_be_killed, kept, lossy, may_fail, only_read, check;
static uint64_t seed, nr_blocks;
static struct connection *connections;
static time_t deadline;
static bool can_fua, can_trim;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t done[NR_KINDS], failed[NR_KINDS], all_done, slowest;
static uint64_t unanswered;
static uint64_t hot;            /* the first of the blocks that are */
static bool flushing;
static _Atomic bool killed;

void
fail (const char *format, ...)
{
  va_list args;

  fflush (stdout);
  fprintf (stderr, "crash-load: seed %" PRIu64 ": ", seed);
  va_start (args, format);
  vfprintf (stderr, format, args);
  va_end (args);
  fputc ('\n', stderr);
  _exit (EXIT_FAILURE);
}

static uint64_t
nsec_now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec * UINT64_C (1000000000) + t.tv_nsec;
}

/* splitmix64 */
static uint64_t
random_below (struct connection *c, uint64_t limit)
{
  uint64_t z = (c->random += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return (z ^ (z >> 31)) % limit;
}

/* The caller holds the lock. */
static uint64_t
oldest_read (void)
{
  uint64_t oldest = NEVER;
  unsigned i, j;

  for (i = 0; i < nr_connections; i++)
    for (j = 0; j < depth; j++) {
      const struct request *r = &connections[i].requests[j];

      if (r->busy && r->kind == READ && r->access.begin < oldest)
        oldest = r->access.begin;
    }
  return oldest;
}

/*----------------------------------------------------------------------
 * Requests
 */

static bool
is_change (const struct request *r)
{
  return r->kind == WRITE || r->kind == ZERO || r->kind == TRIM;
}

/* The caller holds the lock.  If flushes may fail, one at a time tells which
 * writes each is about.
 */
static enum kind
choose_kind (struct connection *c)
{
  unsigned n = random_below (c, 200);

  if (only_read || n < 50)
    return READ;
  if (n < 180)
    return WRITE;
  if (n < 190)
    return ZERO;
  if (n < 196 && can_trim)
    return TRIM;
  return flushing && lossy ? WRITE : FLUSH;
}

/* A quarter of the requests go where others go at the same time. */
static void
choose_blocks (struct request *r)
{
  struct connection *c = r->connection;
  struct access *a = &r->access;
  unsigned size = random_below (c, 200);

  a->count = 1;
  if (size < 30)
    a->count += random_below (c, size == 0 ? MAX_BLOCKS : 16);
  if (a->count > nr_blocks)
    a->count = nr_blocks;
  if (random_below (c, 2000) == 0)
    hot = random_below (c, nr_blocks);
  a->first = random_below (c, nr_blocks);
  if (random_below (c, 4) == 0)
    a->first = hot + a->first % HOT_BLOCKS;
  if (a->first > nr_blocks - a->count)
    a->first = nr_blocks - a->count;
}

static void
choose (struct request *r)
{
  struct connection *c = r->connection;

  r->kind = choose_kind (c);
  r->flags = 0;
  if (can_fua && is_change (r) && random_below (c, 40) == 0)
    r->flags |= LIBNBD_CMD_FLAG_FUA;
  if (r->kind == ZERO && random_below (c, 2))
    r->flags |= LIBNBD_CMD_FLAG_NO_HOLE;
  if (r->kind != FLUSH)
    choose_blocks (r);
}

static void
begin (struct request *r)
{
  choose (r);
  r->busy = true;
  r->access.id = r->kind == WRITE ? model_id () : 0;
  if (r->kind == READ)
    model_begin_read (&r->access);
  else if (r->kind == FLUSH) {
    r->access.begin = model_begin_flush ();
    flushing = true;
  }
  else
    model_begin_change (&r->access, r->kind == TRIM);
}

static void
end (struct request *r, bool success)
{
  uint64_t nsec = nsec_now () - r->sent;

  r->busy = false;
  if (nsec > slowest)
    slowest = nsec;
  success ? done[r->kind]++ : failed[r->kind]++;
  if (r->kind == FLUSH) {
    flushing = false;
    model_end_flush (r->access.begin, success);
  }
  else if (is_change (r))
    model_end_change (&r->access, success, r->flags & LIBNBD_CMD_FLAG_FUA);
  else if (success)
    model_end_read (&r->access, r->buffer);
  if (++all_done == RUNNING) {
    printf ("running\n");
    fflush (stdout);
  }
}

static bool
is_lost (struct nbd_handle *nbd)
{
  return nbd_aio_is_dead (nbd) || nbd_aio_is_closed (nbd);
}

/* What was in flight when the connection broke stays so, for the model. */
static int
completed (void *user_data, int *error)
{
  struct request *r = user_data;

  pthread_mutex_lock (&lock);
  if (*error == 0)
    end (r, true);
  else if (*error == ENOTCONN || *error == ESHUTDOWN) {
    killed = true;
    r->busy = false;
    unanswered++;
  }
  else if (may_fail && *error == EIO && (lossy || r->kind != FLUSH)) {
    r->connection->refused = true;
    end (r, false);
  }
  else
    fail ("%s: %s", kind_names[r->kind], strerror (*error));
  pthread_mutex_unlock (&lock);
  return 1;
}

static int64_t
send_request (struct request *r)
{
  struct nbd_handle *nbd = r->connection->nbd;
  nbd_completion_callback cb = { .callback = completed, .user_data = r };
  uint64_t offset = r->access.first * BLOCK;
  uint64_t length = r->access.count * BLOCK;

  r->sent = nsec_now ();
  switch (r->kind) {
  case READ:
    memset (r->buffer, 0xee, length);
    return nbd_aio_pread (nbd, r->buffer, length, offset, cb, 0);
  case WRITE:
    model_fill (&r->access, r->buffer);
    return nbd_aio_pwrite (nbd, r->buffer, length, offset, cb, r->flags);
  case ZERO:
    return nbd_aio_zero (nbd, length, offset, cb, r->flags);
  case TRIM:
    return nbd_aio_trim (nbd, length, offset, cb, r->flags);
  case FLUSH:
    return nbd_aio_flush (nbd, cb, 0);
  case NR_KINDS:
    break;
  }
  abort ();
}

static void
submit (struct request *r)
{
  struct nbd_handle *nbd = r->connection->nbd;

  pthread_mutex_lock (&lock);
  begin (r);
  pthread_mutex_unlock (&lock);
  if (send_request (r) == -1) {
    if (!is_lost (nbd))
      fail ("%s: %s", kind_names[r->kind], nbd_get_error ());
    killed = true;
  }
}

/* Returns false if the connection is lost. */
static bool
poll_connection (struct nbd_handle *nbd)
{
  int n = nbd_poll (nbd, REPLY_MS);

  if (n == 0)
    fail ("no reply in %d seconds", REPLY_MS / 1000);
  if (n == -1 && !is_lost (nbd))
    fail ("%s", nbd_get_error ());
  return !is_lost (nbd);
}

/* The thread of one connection. */
static void *
work (void *arg)
{
  struct connection *c = arg;
  unsigned i, busy;

  do {
    bool more = !killed && time (NULL) < deadline;

    for (i = busy = 0; i < depth && !is_lost (c->nbd); i++) {
      struct request *r = &c->requests[i];

      if (!r->busy && more)
        submit (r);
      busy += r->busy;
    }
    if (c->refused)
      usleep (10000);           /* no busy loop while all legs are dead */
    c->refused = false;
    if (busy > 0 && !poll_connection (c->nbd)) {
      killed = true;
      break;
    }
  } while (busy > 0);
  return NULL;
}

/*----------------------------------------------------------------------
 * The check
 */

static void
read_everything (struct connection *c)
{
  struct access *a = &c->requests[0].access;
  void *buffer = c->requests[0].buffer;

  for (a->first = 0; a->first < nr_blocks; a->first += a->count) {
    a->count = nr_blocks - a->first;
    if (a->count > MAX_BLOCKS)
      a->count = MAX_BLOCKS;
    model_begin_read (a);
    if (nbd_pread (c->nbd, buffer, a->count * BLOCK, a->first * BLOCK,
                   0) == -1)
      fail ("%s", nbd_get_error ());
    model_end_read (a, buffer);
  }
}

static bool
read_and_flush (void)
{
  uint64_t begin;
  bool success;
  unsigned i;

  for (i = 0; i < nr_connections; i++)
    read_everything (&connections[i]);
  begin = model_begin_flush ();
  success = nbd_flush (connections[0].nbd, 0) == 0;
  model_end_flush (begin, success);
  return success;
}

/* One flush may fail for what was lost before. */
static void
check_everything (void)
{
  if (!read_and_flush () && !(lossy && read_and_flush ()))
    fail ("flush: %s", nbd_get_error ());
}

/*----------------------------------------------------------------------
 * Beginning and end
 */

static void
open_connection (struct connection *c, const char *uri, unsigned number)
{
  unsigned i;

  c->random = seed * 1000 + number;
  c->requests = calloc (depth, sizeof c->requests[0]);
  c->nbd = nbd_create ();
  if (c->requests == NULL || c->nbd == NULL)
    fail ("out of memory");
  for (i = 0; i < depth; i++) {
    c->requests[i].connection = c;
    c->requests[i].buffer = malloc (MAX_BLOCKS * BLOCK);
    if (c->requests[i].buffer == NULL)
      fail ("out of memory");
  }
  if (nbd_connect_uri (c->nbd, uri) == -1)
    fail ("%s", nbd_get_error ());
}

static void
look_at_server (void)
{
  struct nbd_handle *nbd = connections[0].nbd;
  int64_t size = nbd_get_size (nbd);

  if (size < BLOCK)
    fail ("the volume is too small");
  nr_blocks = size / BLOCK;
  if (!check && nr_connections > 1 && nbd_can_multi_conn (nbd) != 1)
    fail ("the server does not offer multi-conn");
  if (nbd_can_flush (nbd) != 1 || nbd_can_zero (nbd) != 1)
    fail ("the server does not offer flush and zero");
  can_fua = nbd_can_fua (nbd) == 1;
  can_trim = nbd_can_trim (nbd) == 1;
  hot = random_below (&connections[0], nr_blocks);
}

static void
run_load (void)
{
  unsigned i;

  deadline = time (NULL) + seconds;
  for (i = 0; i < nr_connections; i++)
    if (pthread_create (&connections[i].thread, NULL, work,
                        &connections[i]) != 0)
      fail ("cannot create a thread");
  for (i = 0; i < nr_connections; i++)
    pthread_join (connections[i].thread, NULL);
  if (killed && !may_be_killed)
    fail ("the connection was lost");
}

/* Also when it was killed: nothing that was sent late may come after this. */
static void
close_connection (struct connection *c)
{
  unsigned i;

  nbd_close (c->nbd);
  for (i = 0; i < depth; i++)
    free (c->requests[i].buffer);
  free (c->requests);
}

static void
summary (uint64_t unsure)
{
  unsigned i;

  printf ("crash-load: seed %" PRIu64 ":", seed);
  for (i = 0; i < NR_KINDS; i++)
    printf (" %" PRIu64 " %s,", done[i], kind_names[i]);
  for (i = 0; i < NR_KINDS; i++)
    if (failed[i] > 0)
      printf (" %" PRIu64 " %s failed,", failed[i], kind_names[i]);
  printf (" %" PRIu64 " unanswered, %" PRIu64 " blocks may hold one thing or"
          " another; slowest %" PRIu64 " ms\n",
          unanswered, unsure, slowest / 1000000);
}

static void __attribute__ ((__noreturn__))
usage (void)
{
  fputs ("crash-load [--check] [-aeklr] [-c CONNECTIONS] [-d DEPTH]"
         " [-t SECONDS] [-s SEED] STATE URI\n", stderr);
  exit (EXIT_FAILURE);
}

static void
parse_options (int argc, char *argv[])
{
  static const struct option long_options[] = {
    { "check", no_argument, NULL, 'C' }, { 0 }
  };
  int option;

  while ((option = getopt_long (argc, argv, "aeklrc:d:t:s:", long_options,
                                NULL)) != -1)
    switch (option) {
    case 'C': check = true; break;
    case 'a': kept = true; break;
    case 'e': may_fail = true; break;
    case 'k': may_be_killed = true; break;
    case 'l': lossy = true; break;
    case 'r': only_read = true; break;
    case 'c': nr_connections = strtoul (optarg, NULL, 0); break;
    case 'd': depth = strtoul (optarg, NULL, 0); break;
    case 't': seconds = strtoul (optarg, NULL, 0); break;
    case 's': seed = strtoull (optarg, NULL, 0); break;
    default: usage ();
    }
  if (argc - optind != 2 || nr_connections == 0 || depth == 0)
    usage ();
}

int
main (int argc, char *argv[])
{
  const char *state, *uri;
  enum loss loss;
  uint64_t unsure;
  unsigned i;

  seed = time (NULL) ^ (uint64_t) getpid () << 32;
  parse_options (argc, argv);
  state = argv[optind];
  uri = argv[optind + 1];
  loss = lossy && !check ? LOSS_UNFLUSHED : LOSS_NOTHING;

  connections = calloc (nr_connections, sizeof connections[0]);
  if (connections == NULL)
    fail ("out of memory");
  for (i = 0; i < nr_connections; i++)
    open_connection (&connections[i], uri, i);
  look_at_server ();
  model_set_horizon (oldest_read);
  if (!model_load (state, nr_blocks, loss)) {
    if (check)
      fail ("%s: %s", state, strerror (errno));
    model_new (nr_blocks, loss);
  }

  check ? check_everything () : run_load ();
  for (i = 0; i < nr_connections; i++)
    close_connection (&connections[i]);
  unsure = model_save (state, kept || check);
  if (!check)
    summary (unsure);
  model_free ();
  free (connections);
  exit (EXIT_SUCCESS);
}
