/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* For tests of a region that is an export of an nbd-server. */

#ifndef DMIO_NBD_FIXTURE_H
#define DMIO_NBD_FIXTURE_H

#include <sys/socket.h>
#include <sys/un.h>

#include <glib/gstdio.h>

#include "log-lines.h"
#include "nbd-server.h"
#include "test-util.h"

#define SECTORS 512
#define SIZE (SECTORS * SECTOR)

static unsigned char data[SIZE];

struct nbd {
  char *dir, *socket, *uri;
  struct nbd_server *server;
  struct block_device *bdev;
  struct io_region where;       /* all of it */
};

static const struct nbd_server_options ordinary = {
  .size = SIZE, .flags = SERVER_CAN_ALL, .structured = true,
};

static inline void
set_up (struct nbd *f, gconstpointer unused)
{
  g_autoptr (GError) error = NULL;

  f->dir = g_dir_make_tmp ("dmio-XXXXXX", &error);
  g_assert_no_error (error);
  f->socket = g_build_filename (f->dir, "socket", NULL);
  f->uri = g_strconcat ("nbd+unix:///?socket=", f->socket, NULL);
  fill (data, SIZE, 1);
  log_lines_clear ();
}

static inline void
close_it (struct nbd *f)
{
  dm_bdev_close (f->bdev);
  f->bdev = NULL;
}

static inline void
stop (struct nbd *f)
{
  close_it (f);
  nbd_server_stop (f->server);
  f->server = NULL;
  g_assert_cmpint (g_unlink (f->socket), ==, 0);
}

static inline void
tear_down (struct nbd *f, gconstpointer unused)
{
  if (f->server != NULL)
    stop (f);
  g_assert_cmpint (g_rmdir (f->dir), ==, 0);
  g_free (f->dir);
  g_free (f->socket);
  g_free (f->uri);
}

static inline void
start_server (struct nbd *f, const struct nbd_server_options *options)
{
  f->server = nbd_server_start (f->socket, options);
  memcpy (nbd_server_data (f->server), data, MIN (options->size, SIZE));
}

static inline void
open_it (struct nbd *f, unsigned int timeout)
{
  const struct dm_bdev_options options = { .timeout = timeout };

  f->bdev = open_device (f->uri, &options);
  f->where = (struct io_region) { f->bdev, 0, dm_bdev_sectors (f->bdev) };
}

static inline void
start (struct nbd *f, const struct nbd_server_options *options)
{
  start_server (f, options);
  open_it (f, 0);
}

static inline struct io_region
part_of (const struct nbd *f, sector_t sector, sector_t count)
{
  return (struct io_region) { f->bdev, sector, count };
}

/* Run a request on SECTORS of the device; returns its errno. */
static inline int
run_at (struct nbd *f, enum dm_io_op op, unsigned int flags, void *buf,
        sector_t sector, sector_t count)
{
  const struct io_region where = part_of (f, sector, count);
  struct dm_io_request req = flagged_request (op, flags, buf);
  struct dm_io_result result = { -1, 0 };
  unsigned long bits;

  req.results = &result;
  bits = run_request (&req, 1, &where, false);
  g_assert_cmphex (bits, ==, result.error != 0);
  return result.error;
}

static inline int
run_all (struct nbd *f, enum dm_io_op op, unsigned int flags, void *buf)
{
  return run_at (f, op, flags, buf, 0, f->where.count);
}

static inline bool
is_offline (const struct nbd *f)
{
  return __atomic_load_n (&f->bdev->offline, __ATOMIC_RELAXED);
}

static inline void
await_offline (const struct nbd *f, bool offline)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;

  while (is_offline (f) != offline) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (1000);
  }
}

/* Instead of a server: a socket on which nobody says a word. */
static inline int
listen_silently (const struct nbd *f)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int listener = socket (AF_UNIX, SOCK_STREAM, 0);

  g_strlcpy (addr.sun_path, f->socket, sizeof addr.sun_path);
  g_assert_cmpint (bind (listener, (struct sockaddr *) &addr, sizeof addr),
                   ==, 0);
  g_assert_cmpint (listen (listener, 10), ==, 0);
  return listener;
}

static inline void
add_nbd_test (const char *name,
              void (*test) (struct nbd *f, gconstpointer unused))
{
  g_test_add (name, struct nbd, NULL, set_up, test, tear_down);
}

#endif /* DMIO_NBD_FIXTURE_H */
