/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is easily got wrong with the region on an NBD server: two things
 * that happen in the same moment, answers that are less than was asked
 * for, the reason that is logged, and URIs that are not what they seem.
 */

#include <config.h>

#include <endian.h>

#include "dm-mirror.h"
#include "nbd-fixture.h"

/* Longer than the library waits before it first connects again. */
#define A_WHILE_US 400000

/*----------------------------------------------------------------------
 * The connections are lost in the moment in which a command is answered.
 */

/* An operation which, when it has ended, can hold up the thread of the
 * device that says so.
 */
struct held {
  struct bdev_io io;
  bool hold;
  int error;
  sem_t ended, go_on;
};

static void
held_done (struct bdev_io *io, int error)
{
  struct held *h = (struct held *) io;
  bool hold = h->hold;

  h->error = error;
  sem_post (&h->ended);
  if (hold) {
    test_sem_wait (&h->go_on);
    sem_destroy (&h->go_on);
  }
}

static void
begin_held (struct held *h, struct nbd *f, enum dm_io_op op,
            unsigned int flags, void *buf, bool hold)
{
  const struct dm_io_memory mem = {
    .type = DM_IO_VM, .length = 8 * SECTOR, .ptr.vm = buf,
  };

  *h = (struct held) {
    .io = {
      .bdev = f->bdev, .op = op, .flags = flags, .done = held_done,
      .length = op == DM_IO_FLUSH ? 0 : 8 * SECTOR,
      .data = memory_begin (&mem),
    },
    .hold = hold,
  };
  sem_init (&h->ended, 0, 0);
  sem_init (&h->go_on, 0, 0);
  bdev_start (&h->io);
}

/* The answer to the operation, and the end of all connections, are there
 * to be seen at once.  It may say either.
 */
static void
answer_and_hang_up (struct nbd *f, enum dm_io_op op, unsigned int flags,
                    unsigned int bit)
{
  unsigned char buf[8 * SECTOR];
  struct held read, other;

  nbd_server_clear_trace (f->server);
  nbd_server_close_gate (f->server, true);
  begin_held (&read, f, DM_IO_READ, 0, buf, true);
  begin_held (&other, f, op, flags, data, false);
  nbd_server_close_gate (f->server, false);
  test_sem_wait (&read.ended);
  nbd_server_await (f->server, bit, 1);
  nbd_server_hang_up (f->server, true);
  sem_post (&read.go_on);
  test_sem_wait (&other.ended);
  g_assert_cmpint (read.error, ==, 0);
  g_assert_true (other.error == 0 || other.error == ENOTCONN ||
                 other.error == EIO);
  sem_destroy (&read.ended);
  sem_destroy (&other.ended);
  sem_destroy (&other.go_on);
}

static void
assert_back (struct nbd *f)
{
  log_lines_await ("*connected again*");
  await_offline (f, false);
  g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, 0);
  g_assert_cmpint (run_at (f, DM_IO_WRITE, DM_IO_FUA, data, 6, 1), ==, 0);
}

static void
assert_not_back (struct nbd *f)
{
  unsigned int attempts = nbd_server_attempts (f->server);

  log_lines_await ("*lost its connection*until*restart*");
  g_usleep (A_WHILE_US);
  g_assert_cmpuint (log_lines_count ("*connected again*"), ==, 0);
  g_assert_cmpuint (nbd_server_attempts (f->server), ==, attempts);
  g_assert_true (is_offline (f));
  g_assert_cmpint (run_at (f, DM_IO_FLUSH, 0, NULL, 0, 0), ==, EIO);
}

static void
test_same_moment (struct nbd *f, gconstpointer unused)
{
  static const struct {
    enum dm_io_op op;
    unsigned int flags, bit;
    bool written, back;
  } cases[] = {
    { DM_IO_WRITE, 0, SERVER_WRITE, false, false },
    { DM_IO_WRITE_ZEROES, 0, SERVER_ZERO, false, false },
    { DM_IO_DISCARD, 0, SERVER_ZERO, false, false },
    { DM_IO_WRITE, DM_IO_FUA, SERVER_WRITE, false, true },
    { DM_IO_WRITE, DM_IO_FUA, SERVER_WRITE, true, false },
    { DM_IO_FLUSH, 0, SERVER_FLUSH, false, true },
    { DM_IO_FLUSH, 0, SERVER_FLUSH, true, true },
  };
  struct nbd_server_options options = ordinary;
  unsigned int i;

  options.flags |= SERVER_CAN_MULTI_CONN;
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    start (f, &options);
    log_lines_clear ();
    if (cases[i].written)
      g_assert_cmpint (run_at (f, DM_IO_WRITE, 0, data, 100, 1), ==, 0);
    answer_and_hang_up (f, cases[i].op, cases[i].flags, cases[i].bit);
    if (cases[i].back)
      assert_back (f);
    else
      assert_not_back (f);
    stop (f);
  }
}

/* The reason is libnbd's, if it has one, and survives what libnbd is
 * used for before it is logged.
 */
static void
test_reason (struct nbd *f, gconstpointer unused)
{
  static const struct {
    enum nbd_server_misdeed what;
    const char *line;
  } cases[] = {
    { SERVER_SAYS_GARBAGE,
      "*: lost its connection (nbd_aio_notify_read: invalid*reply magic*); "
      "connecting again*" },
    { SERVER_HANGS_UP,
      "*: lost its connection (the server has ended it); connecting again*" },
  };
  struct nbd_server_fault fault = { .ops = SERVER_READ, .times = 1 };
  struct nbd_server_options options = ordinary;
  unsigned char buf[SECTOR];
  unsigned int i;

  for (i = 0; i < 2 * G_N_ELEMENTS (cases); i++) {
    options.flags = ordinary.flags | (i % 2 ? SERVER_CAN_MULTI_CONN : 0);
    start (f, &options);
    log_lines_clear ();
    fault.what = cases[i / 2].what;
    nbd_server_fault (f->server, &fault);
    g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 0, 1), ==, ENOTCONN);
    log_lines_await (cases[i / 2].line);
    stop (f);
  }
}

/*----------------------------------------------------------------------
 * Structured replies to a read that are not what was asked for.
 */

/* A chunk: what it says of the bytes from first on. */
struct chunk {
  enum { CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE } type;
  uint32_t first, length;
};

/* A server, read only, that answers each read with these chunks. */
struct reader {
  int listener;
  pthread_t thread;
  const struct chunk *chunks;
  unsigned int n;
};

static bool
receive (int fd, void *buf, size_t length)
{
  return length == 0 || recv (fd, buf, length, MSG_WAITALL) ==
    (ssize_t) length;
}

static void
add16 (GByteArray *to, uint16_t n)
{
  n = htobe16 (n);
  g_byte_array_append (to, (void *) &n, sizeof n);
}

static void
add32 (GByteArray *to, uint32_t n)
{
  n = htobe32 (n);
  g_byte_array_append (to, (void *) &n, sizeof n);
}

static void
add64 (GByteArray *to, uint64_t n)
{
  n = htobe64 (n);
  g_byte_array_append (to, (void *) &n, sizeof n);
}

static void
transmit (int fd, GByteArray *bytes)
{
  g_assert_cmpint (send (fd, bytes->data, bytes->len, MSG_NOSIGNAL), ==,
                   bytes->len);
  g_byte_array_set_size (bytes, 0);
}

static void
add_option_reply (GByteArray *to, uint32_t option, uint32_t type,
                  uint32_t length)
{
  add64 (to, UINT64_C (0x3e889045565a9));
  add32 (to, option);
  add32 (to, type);
  add32 (to, length);
}

/* Structured replies (8) and the export (7); nothing else. */
static bool
shake_hands (int fd, GByteArray *to)
{
  struct { uint64_t magic; uint32_t option, length; } __attribute__
    ((__packed__)) header;
  char payload[1024];

  add64 (to, UINT64_C (0x4e42444d41474943));
  add64 (to, UINT64_C (0x49484156454f5054));
  add16 (to, 3);
  transmit (fd, to);
  if (!receive (fd, payload, 4))
    return false;
  do {
    if (!receive (fd, &header, sizeof header) ||
        !receive (fd, payload, be32toh (header.length)))
      return false;
    header.option = be32toh (header.option);
    if (header.option == 7) {
      add_option_reply (to, 7, 3, 12);
      add16 (to, 0);
      add64 (to, SIZE);
      add16 (to, 1 | SERVER_READ_ONLY);
    }
    add_option_reply (to, header.option,
                      header.option == 7 || header.option == 8 ? 1 :
                      UINT32_C (1) << 31 | 1, 0);
    transmit (fd, to);
  } while (header.option != 7);
  return true;
}

static void
add_chunk (GByteArray *to, const struct chunk *c, bool last, uint64_t cookie,
           uint64_t offset)
{
  add32 (to, 0x668e33ef);
  add16 (to, last);
  add16 (to, c->type);
  add64 (to, cookie);
  switch (c->type) {
  case CHUNK_NONE:
    add32 (to, 0);
    break;
  case CHUNK_DATA:
    add32 (to, 8 + c->length);
    add64 (to, offset + c->first);
    g_byte_array_append (to, data + offset + c->first, c->length);
    break;
  case CHUNK_HOLE:
    add32 (to, 12);
    add64 (to, offset + c->first);
    add32 (to, c->length);
  }
}

static void
serve_reads (struct reader *r, int fd)
{
  struct { uint32_t magic; uint16_t flags, type; uint64_t cookie, offset;
    uint32_t length; } __attribute__ ((__packed__)) request;
  g_autoptr (GByteArray) to = g_byte_array_new ();
  unsigned int i;

  if (!shake_hands (fd, to))
    return;
  while (receive (fd, &request, sizeof request) && request.type == 0) {
    for (i = 0; i < r->n; i++)
      add_chunk (to, &r->chunks[i], i + 1 == r->n, be64toh (request.cookie),
                 be64toh (request.offset));
    transmit (fd, to);
  }
}

static void *
reader_thread (void *arg)
{
  struct reader *r = arg;
  int fd;

  while ((fd = accept (r->listener, NULL, NULL)) != -1) {
    serve_reads (r, fd);
    close (fd);
  }
  return NULL;
}

static void
start_reader (struct nbd *f, struct reader *r, const struct chunk *chunks,
              unsigned int n)
{
  *r = (struct reader) {
    .listener = listen_silently (f), .chunks = chunks, .n = n,
  };
  g_assert_cmpint (pthread_create (&r->thread, NULL, reader_thread, r), ==,
                   0);
  open_it (f, 0);
}

static void
stop_reader (struct nbd *f, struct reader *r)
{
  close_it (f);
  shutdown (r->listener, SHUT_RDWR);
  pthread_join (r->thread, NULL);
  close (r->listener);
  g_assert_cmpint (g_unlink (f->socket), ==, 0);
}

#define READ_SECTORS 8
#define ALL (READ_SECTORS * SECTOR)

static const struct {
  unsigned int n;
  struct chunk chunks[3];
} answers[] = {
  /* Nothing, as if that were all. */
  { 1, { { CHUNK_NONE, 0, 0 } } },
  /* Not all of it. */
  { 1, { { CHUNK_DATA, 0, ALL / 2 } } },
  { 1, { { CHUNK_DATA, ALL / 2, ALL / 2 } } },
  { 1, { { CHUNK_HOLE, 0, SECTOR } } },
  { 2, { { CHUNK_DATA, SECTOR, ALL - SECTOR }, { CHUNK_NONE, 0, 0 } } },
  { 2, { { CHUNK_DATA, 0, SECTOR },
         { CHUNK_HOLE, 2 * SECTOR, ALL - 2 * SECTOR } } },
  { 3, { { CHUNK_DATA, 0, SECTOR }, { CHUNK_DATA, 3 * SECTOR, SECTOR },
         { CHUNK_DATA, SECTOR, SECTOR } } },
};

/* Such a read fails, and what it says is neither old nor taken for
 * zeroes: all is zero.
 */
static void
test_short_reply (struct nbd *f, gconstpointer unused)
{
  unsigned char buf[ALL];
  struct reader reader;
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (answers); i++) {
    start_reader (f, &reader, answers[i].chunks, answers[i].n);
    memset (buf, 0xaa, ALL);
    g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 16, READ_SECTORS), ==,
                     EIO);
    assert_zero (buf, ALL);
    stop_reader (f, &reader);
  }
}

/* In pieces, in whatever order, all is well. */
static void
test_reply_in_pieces (struct nbd *f, gconstpointer unused)
{
  static const struct chunk whole[] = { { CHUNK_DATA, 0, ALL } };
  static const struct chunk pieces[] = {
    { CHUNK_DATA, 3 * SECTOR, ALL - 3 * SECTOR }, { CHUNK_DATA, 0, SECTOR },
    { CHUNK_HOLE, SECTOR, 2 * SECTOR }, { CHUNK_NONE, 0, 0 },
  };
  unsigned char buf[ALL], expected[ALL];
  struct reader reader;

  memcpy (expected, data + 16 * SECTOR, ALL);
  start_reader (f, &reader, whole, G_N_ELEMENTS (whole));
  memset (buf, 0xaa, ALL);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 16, READ_SECTORS), ==, 0);
  assert_same (buf, expected, ALL);
  stop_reader (f, &reader);

  memset (expected + SECTOR, 0, 2 * SECTOR);
  start_reader (f, &reader, pieces, G_N_ELEMENTS (pieces));
  memset (buf, 0xaa, ALL);
  g_assert_cmpint (run_at (f, DM_IO_READ, 0, buf, 16, READ_SECTORS), ==, 0);
  assert_same (buf, expected, ALL);
  stop_reader (f, &reader);
}

/* The mirror then reads from the other leg. */
static void
test_short_reply_of_leg (struct nbd *f, gconstpointer unused)
{
  const struct dm_mirror_options first = { .policy = DM_MIRROR_READ_FIRST };
  const struct mock_options plain = { 0 };
  struct dm_mirror_leg legs[2] = { { .name = "a" }, { .name = "b" } };
  struct dm_io_result results[2];
  unsigned char buf[ALL];
  struct dm_mirror *mirror;
  struct io_region mock;
  struct reader reader;
  unsigned int i;

  open_mocks (&mock, 1, SECTORS, &plain);
  mock_set (mock.bdev, 0, data, SIZE);
  for (i = 0; i < G_N_ELEMENTS (answers); i++) {
    start_reader (f, &reader, answers[i].chunks, answers[i].n);
    log_lines_clear ();
    legs[0].region = f->where;
    legs[1].region = mock;
    mirror = dm_mirror_new (2, legs, &first, NULL);
    memset (buf, 0xaa, ALL);
    g_assert_true (dm_mirror_read (mirror, buf, 16, READ_SECTORS, results));
    assert_same (buf, data + 16 * SECTOR, ALL);
    g_assert_cmpint (results[0].error, ==, EIO);
    log_lines_assert ("region 0 (a): read*Input/output error; reading from "
                      "the next region*", 1);
    dm_mirror_free (mirror);
    stop_reader (f, &reader);
  }
  close_mocks (&mock, 1);
}

/*----------------------------------------------------------------------
 * URIs
 */

/* What libnbd takes for a fragment, it does not read: also not that
 * there is a key by which the server is to be known.
 */
static void
test_fragment (struct nbd *f, gconstpointer unused)
{
  static const char *const bad[] = {
    "nbds://localhost/#?tls-psk-file=x",
    "nbds://localhost/#&tls-psk-file=x",
    "nbds://localhost/?tls-psk-file=x#",
    "nbds://localhost/?x=#&tls-psk-file=x",
    "nbds://localhost#/?tls-certificates=/",
    "nbd://localhost/one#two",
    "nbd+unix:///?socket=one#two",
    "nbds+unix://alice@/#?socket=s&tls-psk-file=x",
  };
  g_autofree char *escaped = g_strconcat ("nbd+unix:///one%23two?socket=",
                                          f->socket, NULL);
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    open_device_refused (bad[i], NULL, EINVAL, "%23");
  start_server (f, &ordinary);
  f->bdev = open_device (escaped, NULL);
}

/* Two URIs for one export, and for two. */
static void
test_same_export (struct nbd *f, gconstpointer unused)
{
  static const char *const same[] = {
    "nbd+unix:///?socket=%s", "nbd+unix://?socket=%s",
    "nbd+unix:///?tls-psk-file=k&socket=%s",
    "nbd+unix:///?socket=%s&tls-psk-file=k",
    "nbd+unix:///?socket=%s;tls-certificates=c", "nbd+unix:///?socket=/../%s",
    "nbd+unix://alice@/?socket=%s",
    "nbds+unix://alice@/?tls-psk-file=k&socket=%s",
    "nbds+unix://alice@/?socket=%s&tls-psk-file=k",
  };
  g_autofree char *other = g_strconcat ("nbd+unix:///other?socket=",
                                        f->socket, NULL);
  struct block_device *second;
  unsigned int i;

  start (f, &ordinary);
  for (i = 0; i < G_N_ELEMENTS (same); i++) {
    g_auto (GStrv) halves = g_strsplit (same[i], "%s", 2);
    g_autofree char *uri = g_strjoinv (f->socket, halves);

    open_device_refused (uri, NULL, EBUSY, "already");
  }
  second = open_device (other, NULL);
  dm_bdev_close (second);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_nbd_test ("/nbd-faults/same-moment", test_same_moment);
  add_nbd_test ("/nbd-faults/reason", test_reason);
  add_nbd_test ("/nbd-faults/short-reply", test_short_reply);
  add_nbd_test ("/nbd-faults/reply-in-pieces", test_reply_in_pieces);
  add_nbd_test ("/nbd-faults/short-reply-of-leg", test_short_reply_of_leg);
  add_nbd_test ("/nbd-faults/fragment", test_fragment);
  add_nbd_test ("/nbd-faults/same-export", test_same_export);
  return g_test_run ();
}
