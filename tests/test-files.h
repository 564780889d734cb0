/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Files for tests of regions that are files: a private directory with
 * three of them, and what one does with these.
 */

#ifndef DMIO_TEST_FILES_H
#define DMIO_TEST_FILES_H

#include <sys/stat.h>

#include <glib/gstdio.h>

#include "test-util.h"

#define SECTORS 256
#define SIZE (SECTORS * SECTOR)

/* A directory with three files of SIZE random bytes. */
struct files {
  char *dir;
  char *path[3];
  unsigned char *data;          /* what is in them */
};

static inline void
set_up (struct files *f, gconstpointer unused)
{
  g_autoptr (GError) error = NULL;
  unsigned int i;

  f->dir = g_dir_make_tmp ("dmio-XXXXXX", &error);
  g_assert_no_error (error);
  f->data = g_malloc (SIZE);
  fill (f->data, SIZE, 1);
  for (i = 0; i < 3; i++) {
    f->path[i] = g_strdup_printf ("%s/region%u", f->dir, i);
    g_file_set_contents (f->path[i], (char *) f->data, SIZE, &error);
    g_assert_no_error (error);
  }
}

static inline void
tear_down (struct files *f, gconstpointer unused)
{
  g_autoptr (GDir) dir = g_dir_open (f->dir, 0, NULL);
  const char *name;
  unsigned int i;

  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (f->dir, name, NULL);

    g_assert_cmpint (g_remove (path), ==, 0);
  }
  g_assert_cmpint (g_rmdir (f->dir), ==, 0);
  g_free (f->dir);
  for (i = 0; i < 3; i++)
    g_free (f->path[i]);
  g_free (f->data);
}

static inline char *
path_in (const struct files *f, const char *name)
{
  return g_build_filename (f->dir, name, NULL);
}

static inline struct block_device *
open_ok (const char *path, unsigned int flags)
{
  const struct dm_bdev_options options = { .flags = flags };

  return open_device (path, &options);
}

/* It must fail, also if nobody wants to know why. */
static inline void
open_refused (const char *path, unsigned int flags, int expected,
              const char *says)
{
  const struct dm_bdev_options options = { .flags = flags };

  open_device_refused (path, &options, expected, says);
  errno = 0;
  g_assert_null (dm_bdev_open (path, &options, NULL));
  g_assert_cmpint (errno, ==, expected);
}

static inline void
assert_contents (const char *path, const void *expected, size_t size)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *contents = NULL;
  gsize length;

  g_file_get_contents (path, &contents, &length, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (length, ==, size);
  assert_same (contents, expected, size);
}

static inline struct stat
stat_of (const char *path)
{
  struct stat st;

  g_assert_cmpint (stat (path, &st), ==, 0);
  return st;
}

static inline void
add_files_test (const char *name,
                void (*test) (struct files *f, gconstpointer unused))
{
  g_test_add (name, struct files, NULL, set_up, test, tear_down);
}

#endif /* DMIO_TEST_FILES_H */
