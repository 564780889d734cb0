/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A client that never stops doubting its server: random requests on
 * several connections, many in flight, a good part of them overlapping
 * on purpose, and every byte read is checked against a model.
 *
 * The model is a register for each sector.  Time is a counter that goes
 * up whenever a request is sent and whenever its reply has been taken.
 * A request took effect somewhere between its two times, begin and end,
 * so of two writes only one that ended before the other began is known
 * to have come first.
 *
 * A sector has a list of values it may hold, one for each write or zero
 * or trim that was sent.  An entry gets the time `dead` as soon as it is
 * certain that the value was overwritten:
 *
 * - when a later write ends, all that ended before it began;
 * - when a read ends that saw a value whose write had ended before the
 *   read began, all other values whose writes had ended by then too.  So
 *   overlapping writes may end in any order, but once seen the outcome
 *   stays: no value flips back.
 *
 * A read may see what was not dead when it began.  A trim may or may not
 * clear the sector, hence it adds the value zero and outdates nothing.
 * Block status may call a sector zero if a read could see zero.
 *
 * Written sectors hold 64 words, each made of the number of the request,
 * of the sector and of the word, so data that got lost, came twice, or
 * went elsewhere is recognized.  While a write is in flight a read may
 * see some bytes from before and some from after it, as nothing in the
 * kernel keeps reads and writes of a file apart; a sector that no write
 * in flight touches must be of one piece.
 *
 * The range starts with zeroes written by the program itself.  At the
 * end, with nothing in flight, every connection reads all of it, and by
 * the rules above all of them must see the same.
 *
 * Threads: one for each connection; it alone uses the handle, and all
 * callbacks run in its nbd_poll.  `lock` owns the model and the counters
 * of the summary.  The seed fixes what each connection asks for, but not
 * how the requests of different connections interleave.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#define SECTOR 512
#define WORDS (SECTOR / sizeof (uint64_t))
#define SECTOR_BITS 26          /* so a volume has at most 32 GiB */
#define MAX_SECTORS 8192        /* of one request */
#define REPLY_MS 120000         /* no reply for so long: it hangs */
#define HOT_SPOTS 8
#define RECENT_PLACES 64
#define NEVER UINT64_MAX

enum kind { READ, STATUS, WRITE, ZERO, TRIM, FLUSH, CACHE, NR_KINDS };
static const char *const kind_names[NR_KINDS] =
  { "read", "block status", "write", "zero", "trim", "flush", "cache" };

/* A value that a sector may hold. */
struct candidate {
  uint64_t value;               /* 0, or request << SECTOR_BITS | sector */
  uint64_t begin, end, dead;
  bool may;                     /* from a trim */
};

struct sector {
  struct candidate *list;
  size_t count, size;
};

/* A request in flight, or room for one. */
struct request {
  struct connection *connection;
  bool busy;
  enum kind kind;
  uint32_t flags;
  uint64_t id, begin;
  uint64_t first, count;        /* in sectors of the range */
  unsigned char *buffer;
};

struct connection {
  pthread_t thread;
  struct nbd_handle *nbd;
  uint64_t random;              /* state of the generator */
  struct request *requests;     /* depth of them */
};

static unsigned nr_connections = 4, depth = 32, seconds = 10;
static uint64_t seed, range_offset, range_sectors;
static struct connection *connections;
static time_t deadline;
static bool can_fua, can_trim, can_cache, can_status;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t now;            /* the time */
static uint64_t next_id = 1;
static struct sector *sectors;
static uint64_t hot_spots[HOT_SPOTS], recent_places[RECENT_PLACES];
static uint64_t done[NR_KINDS];
static uint64_t overlapping;    /* sectors written while being written */

static void __attribute__ ((__noreturn__, __format__ (__printf__, 1, 2)))
fail (const char *format, ...)
{
  va_list args;

  fprintf (stderr, "client-model: seed %" PRIu64 ": ", seed);
  va_start (args, format);
  vfprintf (stderr, format, args);
  va_end (args);
  fputc ('\n', stderr);
  _exit (EXIT_FAILURE);
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

/*----------------------------------------------------------------------
 * What sectors hold
 */

static uint64_t
value_of (const struct request *r, uint64_t sector)
{
  return r->kind == WRITE ? r->id << SECTOR_BITS | sector : 0;
}

static uint64_t
word_of (uint64_t value, unsigned i)
{
  /* Request numbers stay far below 2^32, see take_id. */
  return value ? value << 6 | i : 0;
}

static void
fill (const struct request *r)
{
  uint64_t *words = (uint64_t *) r->buffer;
  uint64_t s;
  unsigned i;

  for (s = r->first; s < r->first + r->count; s++)
    for (i = 0; i < WORDS; i++)
      *words++ = word_of (value_of (r, s), i);
}

/*----------------------------------------------------------------------
 * The model; the caller holds the lock
 */

/* No read in flight began before this. */
static uint64_t
horizon (void)
{
  uint64_t oldest = now;
  unsigned i, j;

  for (i = 0; i < nr_connections; i++)
    for (j = 0; j < depth; j++) {
      const struct request *r = &connections[i].requests[j];

      if (r->busy && (r->kind == READ || r->kind == STATUS) &&
          r->begin < oldest)
        oldest = r->begin;
    }
  return oldest;
}

/* Forget what no read can see any more. */
static void
collect (struct sector *s, uint64_t oldest)
{
  size_t i, kept = 0;

  for (i = 0; i < s->count; i++)
    if (s->list[i].dead > oldest)
      s->list[kept++] = s->list[i];
  s->count = kept;
}

static void
add (struct sector *s, struct candidate new)
{
  if (s->count == s->size) {
    s->size = s->size ? 2 * s->size : 4;
    s->list = realloc (s->list, s->size * sizeof s->list[0]);
    if (s->list == NULL)
      fail ("out of memory");
  }
  s->list[s->count++] = new;
}

static void
model_begin (struct request *r)
{
  bool changes = r->kind == WRITE || r->kind == ZERO || r->kind == TRIM;
  uint64_t s;
  size_t i;

  r->begin = ++now;
  r->busy = true;
  if (!changes)
    return;

  for (s = r->first; s < r->first + r->count; s++) {
    for (i = 0; i < sectors[s].count; i++)
      if (sectors[s].list[i].end == NEVER) {
        overlapping++;
        break;
      }
    add (&sectors[s],
         (struct candidate) { .value = value_of (r, s), .begin = r->begin,
                              .end = NEVER, .dead = NEVER,
                              .may = r->kind == TRIM });
  }
}

/* Outdate the values other than that of KEEP that were complete before
 * TIME.
 */
static void
outdate (struct sector *s, const struct candidate *keep, uint64_t time)
{
  size_t i;

  for (i = 0; i < s->count; i++) {
    struct candidate *c = &s->list[i];

    if (c->end < time && c->dead == NEVER && c->value != keep->value)
      c->dead = now;
  }
}

static void
model_end_change (struct request *r)
{
  uint64_t oldest, s;
  size_t i;

  r->busy = false;
  now++;
  oldest = horizon ();
  for (s = r->first; s < r->first + r->count; s++) {
    struct candidate *c = NULL;

    for (i = 0; c == NULL || c->begin != r->begin; i++)
      c = &sectors[s].list[i];
    c->end = now;
    if (!c->may)
      outdate (&sectors[s], c, r->begin);
    collect (&sectors[s], oldest);
  }
}

/* The newest entry with that value which a read could see that began at
 * TIME.  *IN_FLIGHT: some write was under way since.
 */
static struct candidate *
find (struct sector *s, uint64_t value, uint64_t time, bool *in_flight)
{
  struct candidate *found = NULL;
  size_t i;

  *in_flight = false;
  for (i = 0; i < s->count; i++) {
    struct candidate *c = &s->list[i];

    if (c->end > time)
      *in_flight = true;
    if (c->dead > time && c->value == value &&
        (found == NULL || c->begin > found->begin))
      found = c;
  }
  return found;
}

static void __attribute__ ((__noreturn__))
wrong (const struct request *r, uint64_t s, const char *what, uint64_t word)
{
  uint64_t value = word >> 6;
  size_t i;

  for (i = 0; i < sectors[s].count; i++) {
    const struct candidate *c = &sectors[s].list[i];

    if (c->dead <= r->begin)
      continue;
    fprintf (stderr, "client-model: allowed: request %" PRIu64 "%s,"
             " sent at %" PRIu64 ", done at %" PRId64
             ", outdated at %" PRId64 "\n",
             c->value >> SECTOR_BITS,
             c->may ? " (trim)" : c->value ? "" : " (zero)",
             c->begin, (int64_t) c->end, (int64_t) c->dead);
  }
  fail ("sector %" PRIu64 ", %s sent at %" PRIu64 ", answered at %" PRIu64
        ": %s: %016" PRIx64 " (request %" PRIu64 ", sector %" PRIu64 ")",
        s + range_offset / SECTOR, kind_names[r->kind], r->begin, now, what,
        word, value >> SECTOR_BITS, value % (1 << SECTOR_BITS));
}

/* The byte at this place of the sector is that of a value it may hold. */
static bool
byte_is_possible (const struct request *r, uint64_t s, size_t place,
                  unsigned char byte)
{
  const struct candidate *c = sectors[s].list;
  const struct candidate *end = c + sectors[s].count;
  uint64_t word;
  unsigned char bytes[sizeof word];

  for (; c < end; c++) {
    word = word_of (c->value, place / sizeof word);
    memcpy (bytes, &word, sizeof word);
    if (c->dead > r->begin && bytes[place % sizeof word] == byte)
      return true;
  }
  return false;
}

/* Some of one write and some of another. */
static void
check_mixture (const struct request *r, uint64_t s, const uint64_t *words,
               bool in_flight)
{
  const unsigned char *bytes = (const unsigned char *) words;
  size_t i;

  if (!in_flight)
    wrong (r, s, "a mixture, but no write in flight", words[0]);
  for (i = 0; i < SECTOR; i++)
    if (!byte_is_possible (r, s, i, bytes[i]))
      wrong (r, s, "a mixture with a value it cannot hold",
             words[i / sizeof words[0]]);
}

static void
check_sector (const struct request *r, uint64_t s, const uint64_t *words)
{
  uint64_t value = words[0] >> 6;
  const struct candidate *c;
  bool in_flight;
  unsigned i;

  c = find (&sectors[s], value, r->begin, &in_flight);
  for (i = 0; i < WORDS; i++)
    if (words[i] != word_of (value, i)) {
      check_mixture (r, s, words, in_flight);
      return;
    }
  if (c == NULL)
    wrong (r, s, "a value it cannot hold", words[0]);
  if (c->end < r->begin)
    outdate (&sectors[s], c, r->begin);
}

static void
model_end_read (struct request *r)
{
  const uint64_t *words = (const uint64_t *) r->buffer;
  uint64_t s;

  r->busy = false;
  now++;
  for (s = r->first; s < r->first + r->count; s++, words += WORDS)
    check_sector (r, s, words);
}

/* The server said that these sectors of the request read as zero. */
static void
model_check_zero (const struct request *r, uint64_t first, uint64_t count)
{
  bool in_flight;
  uint64_t s;

  for (s = first; s < first + count && s < r->first + r->count; s++)
    if (find (&sectors[s], 0, r->begin, &in_flight) == NULL)
      wrong (r, s, "called zero, but is not", 0);
}

/*----------------------------------------------------------------------
 * Requests
 */

static int
completed (void *user_data, int *error)
{
  struct request *r = user_data;

  if (*error)
    fail ("%s of %" PRIu64 " sectors at sector %" PRIu64 ": %s",
          kind_names[r->kind], r->count, r->first + range_offset / SECTOR,
          strerror (*error));

  pthread_mutex_lock (&lock);
  done[r->kind]++;
  switch (r->kind) {
  case READ:
    model_end_read (r);
    break;
  case WRITE: case ZERO: case TRIM:
    model_end_change (r);
    break;
  default:
    r->busy = false;
    now++;
  }
  pthread_mutex_unlock (&lock);
  return 1;
}

static int
got_extents (void *user_data, const char *metacontext, uint64_t offset,
             uint32_t *entries, size_t nr_entries, int *error)
{
  struct request *r = user_data;
  uint64_t at = offset - range_offset;
  size_t i;

  pthread_mutex_lock (&lock);
  for (i = 0; i + 1 < nr_entries; i += 2) {
    uint64_t end = at + entries[i];

    if (entries[i + 1] & LIBNBD_STATE_ZERO)
      /* All of a sector, if any part of it. */
      model_check_zero (r, at / SECTOR,
                        (end + SECTOR - 1) / SECTOR - at / SECTOR);
    at = end;
  }
  pthread_mutex_unlock (&lock);
  return 0;
}

/* The number of a new request: 32 bits are used up by nothing that fits
 * into a test, but a wrap would look like corruption.
 */
static uint64_t
take_id (void)
{
  if (next_id >> 32)
    fail ("too many requests for one run");
  return next_id++;
}

static enum kind
choose_kind (struct connection *c)
{
  unsigned n = random_below (c, 100);

  if (n < 34)
    return READ;
  if (n < 38 && can_status)
    return STATUS;
  if (n < 82)
    return WRITE;
  if (n < 90)
    return ZERO;
  if (n < 96 && can_trim)
    return TRIM;
  if (n < 98 && can_cache)
    return CACHE;
  return FLUSH;
}

/* A third of the requests go where others go at the same time, so that
 * they overlap; half of the other reads go where something was changed a
 * moment ago, so that what was lost is missed; the rest anywhere.
 */
static void
choose_range (struct request *r)
{
  struct connection *c = r->connection;
  uint64_t limit = MAX_SECTORS < range_sectors ? MAX_SECTORS : range_sectors;
  uint64_t *hot = &hot_spots[random_below (c, HOT_SPOTS)];
  uint64_t *recent = &recent_places[random_below (c, RECENT_PLACES)];
  unsigned size = random_below (c, 400);

  r->count = 1 + random_below (c, size == 0 ? limit : size < 40 ? 256 : 16);
  if (r->count > limit)
    r->count = limit;

  if (random_below (c, 500) == 0)
    *hot = random_below (c, range_sectors);
  if (random_below (c, 3) == 0)
    r->first = *hot + random_below (c, 32);
  else if (r->kind == READ && random_below (c, 2) == 0)
    r->first = *recent;
  else
    r->first = random_below (c, range_sectors);
  if (r->first > range_sectors - r->count)
    r->first = range_sectors - r->count;
  if (r->kind == WRITE || r->kind == ZERO || r->kind == TRIM)
    *recent = r->first;
}

static uint32_t
choose_flags (struct request *r)
{
  struct connection *c = r->connection;
  uint32_t flags = 0;

  if (can_fua && (r->kind == WRITE || r->kind == ZERO || r->kind == TRIM) &&
      random_below (c, 20) == 0)
    flags |= LIBNBD_CMD_FLAG_FUA;
  if (r->kind == ZERO && random_below (c, 2))
    flags |= LIBNBD_CMD_FLAG_NO_HOLE;
  return flags;
}

static void
submit (struct request *r)
{
  struct nbd_handle *nbd = r->connection->nbd;
  nbd_completion_callback cb = { .callback = completed, .user_data = r };
  nbd_extent_callback extents = { .callback = got_extents, .user_data = r };
  uint64_t offset, length;
  int64_t cookie = -1;

  pthread_mutex_lock (&lock);
  r->kind = choose_kind (r->connection);
  choose_range (r);
  r->flags = choose_flags (r);
  r->id = take_id ();
  model_begin (r);
  pthread_mutex_unlock (&lock);

  offset = range_offset + r->first * SECTOR;
  length = r->count * SECTOR;
  switch (r->kind) {
  case READ:
    memset (r->buffer, 0xee, length);
    cookie = nbd_aio_pread (nbd, r->buffer, length, offset, cb, 0);
    break;
  case STATUS:
    cookie = nbd_aio_block_status (nbd, length, offset, extents, cb, 0);
    break;
  case WRITE:
    fill (r);
    cookie = nbd_aio_pwrite (nbd, r->buffer, length, offset, cb, r->flags);
    break;
  case ZERO:
    cookie = nbd_aio_zero (nbd, length, offset, cb, r->flags);
    break;
  case TRIM:
    cookie = nbd_aio_trim (nbd, length, offset, cb, r->flags);
    break;
  case FLUSH:
    cookie = nbd_aio_flush (nbd, cb, 0);
    break;
  case CACHE:
    cookie = nbd_aio_cache (nbd, length, offset, cb, 0);
    break;
  case NR_KINDS:
    break;
  }
  if (cookie == -1)
    fail ("%s: %s", kind_names[r->kind], nbd_get_error ());
}

/* The thread of one connection. */
static void *
work (void *arg)
{
  struct connection *c = arg;
  unsigned i, busy;

  do {
    bool more = time (NULL) < deadline;

    for (i = busy = 0; i < depth; i++) {
      struct request *r = &c->requests[i];

      if (!r->busy && more)
        submit (r);
      busy += r->busy;
    }
    if (busy > 0 && nbd_aio_in_flight (c->nbd) > 0) {
      int n = nbd_poll (c->nbd, REPLY_MS);

      if (n == -1)
        fail ("%s", nbd_get_error ());
      if (n == 0)
        fail ("no reply in %d seconds", REPLY_MS / 1000);
    }
  } while (busy > 0);
  return NULL;
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
    c->requests[i].buffer = malloc (MAX_SECTORS * SECTOR);
    if (c->requests[i].buffer == NULL)
      fail ("out of memory");
  }
  if (nbd_add_meta_context (c->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
      nbd_connect_uri (c->nbd, uri) == -1)
    fail ("%s", nbd_get_error ());
}

static void
look_at_server (void)
{
  struct nbd_handle *nbd = connections[0].nbd;
  int64_t size = nbd_get_size (nbd);

  if (size < 0)
    fail ("%s", nbd_get_error ());
  if (range_sectors == 0 && (uint64_t) size > range_offset)
    range_sectors = (size - range_offset) / SECTOR;
  if (range_sectors == 0 || range_sectors > UINT64_C (1) << SECTOR_BITS ||
      range_offset + range_sectors * SECTOR > (uint64_t) size)
    fail ("the range does not fit into the volume of %" PRId64 " bytes",
          size);
  if (nr_connections > 1 && nbd_can_multi_conn (nbd) != 1)
    fail ("the server does not offer multi-conn");
  if (nbd_can_flush (nbd) != 1 || nbd_can_zero (nbd) != 1)
    fail ("the server does not offer flush and zero");
  can_fua = nbd_can_fua (nbd) == 1;
  can_trim = nbd_can_trim (nbd) == 1;
  can_cache = nbd_can_cache (nbd) == 1;
  can_status =
    nbd_can_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
}

static void
start_with_zeroes (void)
{
  uint64_t s, n;

  for (s = 0; s < range_sectors; s += n) {
    n = range_sectors - s < MAX_SECTORS ? range_sectors - s : MAX_SECTORS;
    if (nbd_zero (connections[0].nbd, n * SECTOR,
                  range_offset + s * SECTOR, 0) == -1)
      fail ("%s", nbd_get_error ());
  }
  sectors = calloc (range_sectors, sizeof sectors[0]);
  if (sectors == NULL)
    fail ("out of memory");
  for (s = 0; s < range_sectors; s++)
    add (&sectors[s], (struct candidate) { .dead = NEVER });
  for (n = 0; n < HOT_SPOTS; n++)
    hot_spots[n] = random_below (&connections[0], range_sectors);
}

/* Nothing is in flight. */
static void
read_everything (struct connection *c)
{
  struct request *r = &c->requests[0];

  r->kind = READ;
  for (r->first = 0; r->first < range_sectors; r->first += r->count) {
    r->count = range_sectors - r->first;
    if (r->count > MAX_SECTORS)
      r->count = MAX_SECTORS;
    pthread_mutex_lock (&lock);
    model_begin (r);
    pthread_mutex_unlock (&lock);
    if (nbd_pread (c->nbd, r->buffer, r->count * SECTOR,
                   range_offset + r->first * SECTOR, 0) == -1)
      fail ("%s", nbd_get_error ());
    pthread_mutex_lock (&lock);
    model_end_read (r);
    pthread_mutex_unlock (&lock);
  }
}

static void
close_connection (struct connection *c)
{
  unsigned i;

  if (nbd_shutdown (c->nbd, 0) == -1)
    fail ("%s", nbd_get_error ());
  nbd_close (c->nbd);
  for (i = 0; i < depth; i++)
    free (c->requests[i].buffer);
  free (c->requests);
}

static void
summary (void)
{
  unsigned i;

  printf ("client-model: seed %" PRIu64 ":", seed);
  for (i = 0; i < NR_KINDS; i++)
    printf (" %" PRIu64 " %s,", done[i], kind_names[i]);
  printf (" %" PRIu64 " sectors written while being written\n",
          overlapping);
}

static void
usage (void)
{
  fputs ("client-model [-c CONNECTIONS] [-d DEPTH] [-t SECONDS] [-s SEED]"
         " [-r OFFSET:LENGTH] URI\n", stderr);
  exit (EXIT_FAILURE);
}

static void
parse_range (const char *arg)
{
  uint64_t length;
  char rest;

  if (sscanf (arg, "%" SCNu64 ":%" SCNu64 "%c",
              &range_offset, &length, &rest) != 2 ||
      length == 0 || range_offset % SECTOR || length % SECTOR)
    usage ();
  range_sectors = length / SECTOR;
}

int
main (int argc, char *argv[])
{
  unsigned i;
  uint64_t s;
  int option;

  seed = time (NULL) ^ (uint64_t) getpid () << 32;
  while ((option = getopt (argc, argv, "c:d:t:s:r:")) != -1)
    switch (option) {
    case 'c': nr_connections = strtoul (optarg, NULL, 0); break;
    case 'd': depth = strtoul (optarg, NULL, 0); break;
    case 't': seconds = strtoul (optarg, NULL, 0); break;
    case 's': seed = strtoull (optarg, NULL, 0); break;
    case 'r': parse_range (optarg); break;
    default: usage ();
    }
  if (optind != argc - 1 || nr_connections == 0 || depth == 0)
    usage ();

  printf ("client-model: seed %" PRIu64 "\n", seed);
  fflush (stdout);
  connections = calloc (nr_connections, sizeof connections[0]);
  if (connections == NULL)
    fail ("out of memory");
  for (i = 0; i < nr_connections; i++)
    open_connection (&connections[i], argv[optind], i);
  look_at_server ();
  start_with_zeroes ();

  deadline = time (NULL) + seconds;
  for (i = 0; i < nr_connections; i++)
    if (pthread_create (&connections[i].thread, NULL, work,
                        &connections[i]) != 0)
      fail ("cannot create a thread");
  for (i = 0; i < nr_connections; i++)
    pthread_join (connections[i].thread, NULL);

  for (i = 0; i < nr_connections; i++)
    read_everything (&connections[i]);
  summary ();
  if (overlapping == 0)
    fail ("no writes overlapped, so this run proves nothing");

  for (i = 0; i < nr_connections; i++)
    close_connection (&connections[i]);
  for (s = 0; s < range_sectors; s++)
    free (sectors[s].list);
  free (sectors);
  free (connections);
  exit (EXIT_SUCCESS);
}
