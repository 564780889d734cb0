/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <glib.h>

#include "loop-device.h"

/* Other programs look for a free one, too. */
#define ATTEMPTS 20

/* 0 or an errno, of which EBUSY means that somebody was faster. */
static int
attach (struct loop_device *loop, int control, int file,
        unsigned int block_size)
{
  const struct loop_config config = {
    .fd = file,
    .block_size = block_size,
    .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
  };
  int n = ioctl (control, LOOP_CTL_GET_FREE), err = 0;

  if (n == -1)
    return errno;
  g_snprintf (loop->path, sizeof loop->path, "/dev/loop%d", n);
  loop->fd = open (loop->path, O_RDWR | O_CLOEXEC);
  if (loop->fd == -1)
    return errno;
  if (ioctl (loop->fd, LOOP_CONFIGURE, &config) == -1) {
    err = errno;
    close (loop->fd);
  }
  return err;
}

bool
loop_attach (struct loop_device *loop, const char *file,
             unsigned int block_size)
{
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC);
  int fd = open (file, O_RDWR | O_CLOEXEC);
  int i, err = EBUSY;

  g_assert_cmpint (fd, !=, -1);
  for (i = 0; control != -1 && err == EBUSY && i < ATTEMPTS; i++)
    err = attach (loop, control, fd, block_size);
  if (err != 0)
    loop->fd = -1;
  if (control != -1)
    close (control);
  close (fd);
  return err == 0;
}

void
loop_detach (struct loop_device *loop)
{
  if (loop->fd != -1)
    close (loop->fd);
}
