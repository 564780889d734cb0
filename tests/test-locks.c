/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* One writer: locks on real files against this process, another one and
 * qemu (S4), and that refused files are closed again.
 *
 * Processes are forked while no device is open, so that they share no
 * lock with this one.
 */

#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "block-device.h"
#include "test-files.h"

static void
test_s4_same_process (struct files *f, gconstpointer unused)
{
  g_autofree char *hard = path_in (f, "hard");
  g_autofree char *soft = path_in (f, "soft");
  g_autofree char *dotted = g_strconcat (f->dir, "/./region0", NULL);
  struct block_device *bdev;
  unsigned int flags, i;

  g_assert_cmpint (link (f->path[0], hard), ==, 0);
  g_assert_cmpint (symlink ("region0", soft), ==, 0);
  for (flags = 0; flags <= DM_BDEV_READ_ONLY; flags++) {
    bdev = open_ok (f->path[0], flags);
    for (i = 0; i < 2; i++) {
      open_refused (f->path[0], i, EBUSY, "already open");
      open_refused (hard, i, EBUSY, f->path[0]);
      open_refused (soft, i, EBUSY, f->path[0]);
      open_refused (dotted, i, EBUSY, f->path[0]);
    }
    dm_bdev_close (bdev);
    dm_bdev_close (open_ok (hard, 0));
    dm_bdev_close (open_ok (soft, 0));
  }
}

/* Of threads that open one file at the same time only one gets it. */
#define OPENERS 8

struct opener {
  pthread_t thread;
  pthread_barrier_t *barrier;
  const char *path;
  struct block_device *bdev;
};

static void *
open_one (void *context)
{
  struct opener *o = context;

  pthread_barrier_wait (o->barrier);
  o->bdev = dm_bdev_open (o->path, NULL, NULL);
  return NULL;
}

static void
test_s4_same_process_threads (struct files *f, gconstpointer unused)
{
  struct opener openers[OPENERS];
  pthread_barrier_t barrier;
  unsigned int i, opened, round;

  for (round = 0; round < 20; round++) {
    pthread_barrier_init (&barrier, NULL, OPENERS);
    for (i = 0; i < OPENERS; i++) {
      openers[i].barrier = &barrier;
      openers[i].path = f->path[0];
      g_assert_cmpint (pthread_create (&openers[i].thread, NULL, open_one,
                                       &openers[i]), ==, 0);
    }
    for (i = opened = 0; i < OPENERS; i++) {
      pthread_join (openers[i].thread, NULL);
      opened += openers[i].bdev != NULL;
      if (openers[i].bdev != NULL)
        g_assert_cmpstr (dm_bdev_name (openers[i].bdev), ==, f->path[0]);
    }
    g_assert_cmpuint (opened, ==, 1);
    for (i = 0; i < OPENERS; i++)
      dm_bdev_close (openers[i].bdev);
    pthread_barrier_destroy (&barrier);
  }
}

/* Another process that holds a file open. */
struct holder {
  pid_t pid;
  int answer, command;          /* pipes, from it and to it */
};

/* The process: open, say how it went, close when told, end when told. */
static void
hold (const char *path, unsigned int flags, int answer, int command)
{
  const struct dm_bdev_options options = { .flags = flags };
  struct block_device *bdev = dm_bdev_open (path, &options, NULL);
  char c = bdev != NULL ? 'y' : errno == EBUSY ? 'n' : 'e';

  alarm (WAIT_SECONDS);
  close (open (path, O_RDWR));  /* takes no lock away */
  if (write (answer, &c, 1) != 1 || read (command, &c, 1) != 1)
    _exit (1);
  dm_bdev_close (bdev);
  if (write (answer, &c, 1) != 1 || read (command, &c, 1) != 1)
    _exit (1);
  _exit (0);
}

static char
hear (const struct holder *h)
{
  char c;

  g_assert_cmpint (read (h->answer, &c, 1), ==, 1);
  return c;
}

/* Returns 'y', or 'n' if it was refused. */
static char
start_holder (struct holder *h, const char *path, unsigned int flags)
{
  int answer[2], command[2];

  g_assert_cmpint (pipe2 (answer, O_CLOEXEC), ==, 0);
  g_assert_cmpint (pipe2 (command, O_CLOEXEC), ==, 0);
  h->pid = fork ();
  g_assert_cmpint (h->pid, >=, 0);
  if (h->pid == 0)
    hold (path, flags, answer[1], command[0]);
  close (answer[1]);
  close (command[0]);
  h->answer = answer[0];
  h->command = command[1];
  return hear (h);
}

static void
tell_to_close (const struct holder *h)
{
  g_assert_cmpint (write (h->command, "c", 1), ==, 1);
  g_assert_cmpint (hear (h), ==, 'c');
}

static void
end_holder (const struct holder *h)
{
  int status;

  g_assert_cmpint (write (h->command, "e", 1), ==, 1);
  close (h->command);
  close (h->answer);
  g_assert_cmpint (waitpid (h->pid, &status, 0), ==, h->pid);
  g_assert_cmpint (status, ==, 0);
}

/* By this process, as seen by another open file. */
static void
assert_locked (const char *path)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  int fd = open (path, O_RDWR | O_CLOEXEC);

  g_assert_cmpint (fd, !=, -1);
  g_assert_cmpint (fcntl (fd, F_OFD_GETLK, &lock), ==, 0);
  g_assert_cmpint (lock.l_type, ==, F_WRLCK);
  close (fd);
}

static void
test_s4_other_process (struct files *f, gconstpointer unused)
{
  static const struct {
    unsigned int theirs, ours;
    bool refused;
  } cases[] = {
    { 0, 0, true }, { 0, DM_BDEV_READ_ONLY, true },
    { DM_BDEV_READ_ONLY, 0, true },
    { DM_BDEV_READ_ONLY, DM_BDEV_READ_ONLY, false },
  };
  struct holder h;
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_assert_cmpint (start_holder (&h, f->path[0], cases[i].theirs),
                     ==, 'y');
    if (cases[i].refused)
      open_refused (f->path[0], cases[i].ours, EBUSY, "locked");
    else
      dm_bdev_close (open_ok (f->path[0], cases[i].ours));
    dm_bdev_close (open_ok (f->path[1], 0));
    tell_to_close (&h);
    dm_bdev_close (open_ok (f->path[0], 0));
    end_holder (&h);
  }
}

/* Who only looks is kept out by nobody, and keeps nobody out. */
static void
test_s4_no_lock (struct files *f, gconstpointer unused)
{
  static const struct {
    unsigned int theirs;
    bool in_use;
  } cases[] = {
    { 0, true }, { DM_BDEV_READ_ONLY, false },
    { DM_BDEV_READ_ONLY | BDEV_NO_LOCK, false },
  };
  const unsigned int ours = DM_BDEV_READ_ONLY | BDEV_NO_LOCK;
  struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  struct block_device *bdev;
  struct holder h;
  unsigned int i;
  int fd;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_assert_cmpint (start_holder (&h, f->path[0], cases[i].theirs),
                     ==, 'y');
    bdev = open_ok (f->path[0], ours);
    g_assert_cmpint (bdev->in_use, ==, cases[i].in_use);
    tell_to_close (&h);
    end_holder (&h);
    fd = open (f->path[0], O_RDWR | O_CLOEXEC);
    g_assert_cmpint (fcntl (fd, F_OFD_SETLK, &all), ==, 0);
    dm_bdev_close (bdev);
    close (fd);
  }
}

/* Parts of one file are open at once, and it is locked until the last is closed;
 * who does not know of parts is refused.
 */
static void
test_s4_parts (struct files *f, gconstpointer unused)
{
  const struct dm_bdev_options in_parts = { .flags = BDEV_IN_PARTS };
  struct block_device *part[3];
  struct holder h;
  unsigned int i;

  g_assert_cmpint (start_holder (&h, f->path[0], 0), ==, 'y');
  g_assert_null (dm_bdev_open (f->path[0], &in_parts, NULL));
  tell_to_close (&h);
  for (i = 0; i < 3; i++) {
    part[i] = dm_bdev_open (f->path[0], &in_parts, NULL);
    g_assert_nonnull (part[i]);
    g_assert_true (part[i]->file == part[0]->file);
  }
  end_holder (&h);
  for (i = 0; i < 3; i++) {
    open_refused (f->path[0], 0, EBUSY, "already open");
    assert_locked (f->path[0]);
    dm_bdev_close (part[i]);
  }
  part[0] = open_ok (f->path[0], 0);
  g_assert_null (dm_bdev_open (f->path[0], &in_parts, NULL));
  g_assert_cmpint (errno, ==, EBUSY);
  dm_bdev_close (part[0]);
}

/* A lock dies with its process, and three processes may read. */
static void
test_s4_killed_process (struct files *f, gconstpointer unused)
{
  struct holder h[3];
  unsigned int i;
  int status;

  g_assert_cmpint (start_holder (&h[0], f->path[0], 0), ==, 'y');
  g_assert_cmpint (start_holder (&h[1], f->path[0], 0), ==, 'n');
  g_assert_cmpint (kill (h[0].pid, SIGKILL), ==, 0);
  g_assert_cmpint (waitpid (h[0].pid, &status, 0), ==, h[0].pid);
  close (h[0].answer);
  close (h[0].command);
  tell_to_close (&h[1]);
  end_holder (&h[1]);
  for (i = 0; i < 3; i++)
    g_assert_cmpint (start_holder (&h[i], f->path[0], DM_BDEV_READ_ONLY),
                     ==, 'y');
  open_refused (f->path[0], 0, EBUSY, "locked");
  for (i = 0; i < 3; i++) {
    tell_to_close (&h[i]);
    end_holder (&h[i]);
  }
  dm_bdev_close (open_ok (f->path[0], 0));
}

/* Returns the exit status. */
static int
run_program (const char *program, const char *arg1, const char *arg2,
             const char *arg3, const char *path)
{
  const char *argv[] = { program, arg1, arg2, arg3, path, NULL };
  g_autoptr (GError) error = NULL;
  int status;

  g_spawn_sync (NULL, (char **) argv, NULL,
                G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL |
                G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL, &status,
                &error);
  g_assert_no_error (error);
  return status;
}

static bool
have (const char *program)
{
  g_autofree char *path = g_find_program_in_path (program);

  if (path == NULL) {
    g_autofree char *why = g_strconcat (program, " not found", NULL);

    g_test_skip (why);
  }
  return path != NULL;
}

static int
qemu_reads (const char *path)
{
  return run_program ("qemu-io", "-fraw", "-r", "-cread 0 512", path);
}

static int
qemu_writes (const char *path)
{
  return run_program ("qemu-io", "-fraw", "-twriteback",
                      "-cwrite 0 512", path);
}

/* Not "qemu-img info", which does not look into a raw file and therefore
 * takes no lock.
 */
static int
qemu_maps (const char *path)
{
  return run_program ("qemu-img", "map", "-f", "raw", path);
}

static void
test_s4_refuses_qemu (struct files *f, gconstpointer unused)
{
  struct block_device *bdev;

  if (!have ("qemu-io") || !have ("qemu-img"))
    return;
  bdev = open_ok (f->path[0], 0);
  g_assert_cmpint (qemu_reads (f->path[0]), !=, 0);
  g_assert_cmpint (qemu_writes (f->path[0]), !=, 0);
  g_assert_cmpint (qemu_maps (f->path[0]), !=, 0);
  dm_bdev_close (bdev);
  assert_contents (f->path[0], f->data, SIZE);
  g_assert_cmpint (qemu_reads (f->path[0]), ==, 0);
  g_assert_cmpint (qemu_writes (f->path[0]), ==, 0);
  g_assert_cmpint (qemu_maps (f->path[0]), ==, 0);

  /* Readers do not mind each other. */
  bdev = open_ok (f->path[1], DM_BDEV_READ_ONLY);
  g_assert_cmpint (qemu_writes (f->path[1]), !=, 0);
  g_assert_cmpint (qemu_reads (f->path[1]), ==, 0);
  dm_bdev_close (bdev);
  assert_contents (f->path[1], f->data, SIZE);
}

/* Read until qemu-io has said that it has read a sector, and so has the
 * file open.
 */
static void
await_qemu (int fd)
{
  g_autoptr (GString) said = g_string_new (NULL);
  char buf[256];
  ssize_t n;

  while (strstr (said->str, "read 512/512") == NULL) {
    n = read (fd, buf, sizeof buf);
    g_assert_cmpint (n, >, 0);
    g_string_append_len (said, buf, n);
  }
}

/* Open the file while qemu-io has it open. */
static void
check_refused_by_qemu (struct files *f, bool qemu_only_reads)
{
  char *argv[] = { (char *) "qemu-io", (char *) "-fraw", f->path[0], NULL,
                   NULL };
  g_autoptr (GError) error = NULL;
  int to, from, status;
  GPid pid;

  if (qemu_only_reads)
    argv[3] = (char *) "-r";
  g_spawn_async_with_pipes (NULL, argv, NULL,
                            G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD |
                            G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &pid,
                            &to, &from, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpint (write (to, "read 0 512\n", 11), ==, 11);
  await_qemu (from);
  open_refused (f->path[0], 0, EBUSY, "qemu");
  if (qemu_only_reads)
    dm_bdev_close (open_ok (f->path[0], DM_BDEV_READ_ONLY));
  else
    open_refused (f->path[0], DM_BDEV_READ_ONLY, EBUSY, "qemu");
  close (to);
  close (from);
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  dm_bdev_close (open_ok (f->path[0], 0));
}

static void
test_s4_refused_by_qemu (struct files *f, gconstpointer unused)
{
  if (!have ("qemu-io"))
    return;
  check_refused_by_qemu (f, false);
  check_refused_by_qemu (f, true);
}

/* An open that was refused leaves nothing behind. */
static void
test_no_leaked_descriptors (struct files *f, gconstpointer unused)
{
  g_autofree char *missing = path_in (f, "missing");
  struct holder h;
  unsigned int i;
  int fd, first;

  g_assert_cmpint (start_holder (&h, f->path[0], 0), ==, 'y');
  first = open ("/dev/null", O_RDONLY);
  for (i = 0; i < 10; i++) {
    open_refused (f->path[0], 0, EBUSY, "locked");
    open_refused (missing, 0, ENOENT, "");
    open_refused (f->dir, 0, EISDIR, "");
    dm_bdev_close (open_ok (f->path[1], 0));
  }
  fd = open ("/dev/null", O_RDONLY);
  g_assert_cmpint (fd, ==, first + 1);
  close (fd);
  close (first);
  tell_to_close (&h);
  end_holder (&h);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  add_files_test ("/locks/s4-same-process", test_s4_same_process);
  add_files_test ("/locks/s4-same-process-threads",
                  test_s4_same_process_threads);
  add_files_test ("/locks/s4-other-process", test_s4_other_process);
  add_files_test ("/locks/s4-parts", test_s4_parts);
  add_files_test ("/locks/s4-killed-process", test_s4_killed_process);
  add_files_test ("/locks/s4-no-lock", test_s4_no_lock);
  add_files_test ("/locks/s4-refuses-qemu", test_s4_refuses_qemu);
  add_files_test ("/locks/s4-refused-by-qemu", test_s4_refused_by_qemu);
  add_files_test ("/locks/no-leaked-descriptors", test_no_leaked_descriptors);
  return g_test_run ();
}
