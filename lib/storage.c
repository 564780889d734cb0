/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <glib.h>

#include "dm-io.h"
#include "storage.h"

/* How many loop devices may stand on each other. */
#define MAX_LEVELS 8

static char *
sysfs_file (dev_t dev, const char *name)
{
  return g_strdup_printf ("/sys/dev/block/%u:%u/%s", major (dev), minor (dev),
                          name);
}

static bool
read_sysfs (dev_t dev, const char *name, char **contents)
{
  g_autofree char *file = sysfs_file (dev, name);

  return g_file_get_contents (file, contents, NULL, NULL);
}

static void
move (struct storage *s, uint64_t by)
{
  s->begin += by;
  s->end += by;
}

/* From a partition, which alone has a start, to its disk. */
static void
go_to_disk (struct storage *s)
{
  g_autofree char *start = NULL, *disk = NULL;
  char *rest;
  guint64 n;

  if (!read_sysfs (s->dev, "start", &start) ||
      !read_sysfs (s->dev, "../dev", &disk))
    return;
  n = g_ascii_strtoull (disk, &rest, 10);
  if (*rest != ':')
    return;
  s->dev = makedev (n, g_ascii_strtoull (rest + 1, NULL, 10));
  move (s, g_ascii_strtoull (start, NULL, 10) * DM_IO_SECTOR_SIZE);
}

/* Returns a descriptor or -1. */
static int
open_device (dev_t dev)
{
  g_autofree char *link = sysfs_file (dev, "");
  g_autofree char *directory = g_canonicalize_filename (link, NULL);
  g_autofree char *target = g_file_read_link (directory, NULL);
  g_autofree char *name = NULL, *path = NULL;
  struct stat st;
  int fd;

  if (target == NULL)
    return -1;
  name = g_path_get_basename (target);
  path = g_build_filename ("/dev", g_strdelimit (name, "!", '/'), NULL);
  fd = open (path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd != -1 && (fstat (fd, &st) == -1 || st.st_rdev != dev)) {
    close (fd);
    return -1;
  }
  return fd;
}

/* FD is open on the disk or a partition of it. */
static bool
is_loop (int fd, const struct storage *s, struct loop_info64 *info)
{
  return fd != -1 && major (s->dev) == LOOP_MAJOR &&
    ioctl (fd, LOOP_GET_STATUS64, info) == 0;
}

void
storage_find (int fd, const struct stat *st, struct storage *s)
{
  struct loop_info64 info;
  int below = dup (fd), level;

  *s = (struct storage) {
    .dev = st->st_dev, .ino = st->st_ino, .end = UINT64_MAX,
  };
  if (S_ISBLK (st->st_mode))
    *s = (struct storage) {
      .dev = st->st_rdev, .end = lseek (fd, 0, SEEK_END),
    };
  for (level = 0; s->ino == 0 && level < MAX_LEVELS; level++) {
    go_to_disk (s);
    if (!is_loop (below, s, &info))
      break;
    move (s, info.lo_offset);
    s->dev = info.lo_rdevice != 0 ? info.lo_rdevice : info.lo_device;
    s->ino = info.lo_rdevice != 0 ? 0 : info.lo_inode;
    close (below);
    below = info.lo_rdevice != 0 ? open_device (s->dev) : -1;
  }
  if (below != -1)
    close (below);
}

bool
storage_overlaps (const struct storage *a, const struct storage *b)
{
  return a->dev == b->dev && a->ino == b->ino && a->begin < b->end &&
    b->begin < a->end;
}
