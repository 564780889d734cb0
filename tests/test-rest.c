/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Devices that are used before a fork, and then by the child: what
 * bdev_rest and workers_rest leave survives that.
 */

#include <config.h>

#include <dirent.h>
#include <sys/wait.h>

#include "log-lines.h"
#include "nbdkit-server.h"
#include "test-files.h"
#include "worker.h"

#define REGIONS 4

/* nbdkit, a file, and two past the page cache, if that is possible; these are
 * used with a ring.
 */
struct world {
  struct files files;
  char *paths[REGIONS];         /* of the files, also that of nbdkit */
  struct nbdkit_server server;
  struct io_region where[REGIONS];
  unsigned int n;
  unsigned int threads;         /* before there were any of the library */
};

static unsigned int
count_threads (void)
{
  DIR *dir = opendir ("/proc/self/task");
  unsigned int n = 0;

  while (readdir (dir) != NULL)
    n++;
  closedir (dir);
  return n;
}

/* A thread that was joined may still be seen for a moment. */
static void
assert_threads (unsigned int expected)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;

  while (count_threads () != expected) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (1000);
  }
}

/* A child would keep open what the parent used with it, see ring.c. */
static void
assert_no_ring (void)
{
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/fd", 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *link = g_build_filename ("/proc/self/fd", name, NULL);
    g_autofree char *target = g_file_read_link (link, NULL);

    g_assert_false (g_strcmp0 (target, "anon_inode:[io_uring]") == 0);
  }
}

static void
add (struct world *w, const char *name, unsigned int flags)
{
  const struct dm_bdev_options options = { .flags = flags };
  struct block_device *bdev = dm_bdev_open (name, &options, NULL);

  if (bdev != NULL)
    w->where[w->n++] = (struct io_region) { bdev, 0, SECTORS };
}

static void *
say_id (void *id)
{
  *(pid_t *) id = gettid ();
  return NULL;
}

/* With its first thread, a process may get one of a sanitizer.  That thread has
 * left /proc, too, when this returns, so it is not counted.
 */
static void
start_first_thread (void)
{
  gint64 end = g_get_monotonic_time () + WAIT_SECONDS * G_USEC_PER_SEC;
  g_autofree char *task = NULL;
  pthread_t thread;
  pid_t id;

  g_assert_cmpint (pthread_create (&thread, NULL, say_id, &id), ==, 0);
  pthread_join (thread, NULL);
  task = g_strdup_printf ("/proc/self/task/%d", (int) id);
  while (g_file_test (task, G_FILE_TEST_EXISTS)) {
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (1000);
  }
}

static void
set_up_world (struct world *w, gconstpointer unused)
{
  g_autoptr (GError) error = NULL;
  unsigned int i;

  set_up (&w->files, NULL);
  for (i = 0; i < REGIONS; i++)
    w->paths[i] = g_strdup_printf ("%s/region%u", w->files.dir, i);
  g_file_set_contents (w->paths[3], (char *) w->files.data, SIZE, &error);
  g_assert_no_error (error);
  nbdkit_server_start (&w->server, w->paths[0], 1);
  start_first_thread ();
  w->threads = count_threads ();
  add (w, w->server.uri, 0);
  add (w, w->paths[1], 0);
  for (i = 2; i < REGIONS; i++) {
    add (w, w->paths[i], DM_BDEV_DIRECT);
    if (w->n == i)              /* not possible there */
      add (w, w->paths[i], 0);
  }
  g_assert_cmpuint (w->n, ==, REGIONS);
}

static void
close_all (struct world *w)
{
  while (w->n > 0)
    dm_bdev_close (w->where[--w->n].bdev);
}

static void
tear_down_world (struct world *w, gconstpointer unused)
{
  unsigned int i;

  close_all (w);
  nbdkit_server_stop (&w->server);
  for (i = 0; i < REGIONS; i++)
    g_free (w->paths[i]);
  tear_down (&w->files, NULL);
}

/* Write BUF everywhere, flush that, and read it, with and without waiting. */
static void
use (struct world *w, unsigned char *buf)
{
  struct page *in = new_pages (SIZE / PAGE);
  unsigned int i, async;

  for (async = 0; async < 2; async++) {
    run_ok (buf, DM_IO_WRITE, 0, w->n, w->where, async);
    run_ok (NULL, DM_IO_FLUSH, 0, w->n, w->where, async);
    run_ok (buf, DM_IO_WRITE, DM_IO_FUA, w->n, w->where, async);
    for (i = 0; i < w->n; i++) {
      memset (in, 0xaa, SIZE);
      run_ok (in, DM_IO_READ, 0, 1, &w->where[i], async);
      assert_same (in, buf, SIZE);
    }
  }
  free (in);
}

static void
rest (struct world *w)
{
  unsigned int i;

  for (i = 0; i < w->n; i++)
    bdev_rest (w->where[i].bdev);
  workers_rest ();
  assert_threads (w->threads);
  assert_no_ring ();
}

static void
in_child (struct world *w, unsigned char *buf, bool attend)
{
  unsigned int i;

  alarm (WATCHDOG_SECONDS);
  for (i = 0; i < w->n && attend; i++)
    g_assert_cmpint (bdev_attend (w->where[i].bdev), ==, 0);
  fill (buf, SIZE, 3);
  use (w, buf);
  close_all (w);
  _exit (42);
}

static void
test_fork (struct world *w, gconstpointer attend)
{
  unsigned char *buf = (unsigned char *) new_pages (SIZE / PAGE);
  int status;
  pid_t pid;
  unsigned int i;

  fill (buf, SIZE, 2);
  use (w, buf);
  rest (w);
  pid = fork ();
  if (pid == 0)
    in_child (w, buf, GPOINTER_TO_INT (attend));
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, 42);
  assert_threads (w->threads);
  fill (buf, SIZE, 3);
  for (i = 0; i < REGIONS; i++)
    assert_contents (w->paths[i], buf, SIZE);
  free (buf);
}

/* Without a fork; more than once, and with nothing to do. */
static void
test_use_again (struct world *w, gconstpointer unused)
{
  unsigned char *buf = (unsigned char *) new_pages (SIZE / PAGE);
  unsigned int i;

  rest (w);
  for (i = 0; i < 3; i++) {
    fill (buf, SIZE, i);
    use (w, buf);
    rest (w);
    rest (w);
  }
  free (buf);
}

/* While it tries to connect again: that ends too, and begins again. */
static void
test_lost (struct world *w, gconstpointer unused)
{
  struct block_device *bdev = w->where[0].bdev;
  unsigned char *buf = (unsigned char *) new_pages (SIZE / PAGE);
  unsigned int i;

  log_lines_clear ();
  g_assert_cmpint (bdev_attend (bdev), ==, 0);
  nbdkit_server_kill (&w->server);
  log_lines_await ("*lost its connection*");
  for (i = 0; i < 10; i++) {
    g_usleep (50000);
    rest (w);
    g_assert_cmpint (bdev_attend (bdev), ==, 0);
  }
  log_lines_assert ("*lost its connection*", 1);
  nbdkit_server_restart (&w->server);
  log_lines_await ("*connected again*");
  fill (buf, SIZE, 2);
  use (w, buf);
  rest (w);
  free (buf);
}

static void
add_test (const char *name,
          void (*test) (struct world *w, gconstpointer data), bool data)
{
  g_test_add (name, struct world, GINT_TO_POINTER (data), set_up_world, test,
              tear_down_world);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  add_test ("/rest/fork", test_fork, false);
  add_test ("/rest/fork-and-attend", test_fork, true);
  add_test ("/rest/use-again", test_use_again, false);
  add_test ("/rest/lost", test_lost, false);
  return g_test_run ();
}
