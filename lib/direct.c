/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <glib.h>

#include "direct.h"
#include "dm-io.h"

uint64_t
direct_queue_attribute (dev_t rdev, const char *name)
{
  static const char *const dirs[] = { "queue", "../queue" };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (dirs); i++) {
    g_autofree char *contents = NULL;
    g_autofree char *file =
      g_strdup_printf ("/sys/dev/block/%u:%u/%s/%s",
                       major (rdev), minor (rdev), dirs[i], name);

    if (g_file_get_contents (file, &contents, NULL, NULL))
      return g_ascii_strtoull (contents, NULL, 10);
  }
  return 0;
}

/* What the kernel says, if it does: Linux 6.1 and some file systems. */
static bool
ask_alignment (int fd, struct direct_alignment *align)
{
#ifdef STATX_DIOALIGN
  struct statx stx;

  if (statx (fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
      stx.stx_mask & STATX_DIOALIGN) {
    align->block_size = stx.stx_dio_offset_align;
    align->mem_align = stx.stx_dio_mem_align;
    return true;
  }
#endif
  return false;
}

/* The smallest block that can be read, 0 if there is none. */
static unsigned int
try_blocks (int fd)
{
  struct page page;

  if (pread (fd, &page, DM_IO_SECTOR_SIZE, 0) != -1)
    return DM_IO_SECTOR_SIZE;
  if (errno == EINVAL &&
      pread (fd, &page, sizeof page, 0) == -1 && errno == EINVAL)
    return 0;
  return sizeof page;
}

/* Never too small, and perhaps larger than needed. */
static struct direct_alignment
guess_alignment (int fd)
{
  unsigned int block_size;
  struct stat st;
  int size;

  if (ioctl (fd, BLKSSZGET, &size) == 0)
    block_size = size;
  else {
    block_size = try_blocks (fd);
    if (block_size > 0 && fstat (fd, &st) == 0)
      block_size = MAX (block_size,
                        direct_queue_attribute (st.st_dev,
                                                "logical_block_size"));
  }
  return (struct direct_alignment) { block_size, block_size };
}

static bool
fits_page (unsigned int n)
{
  return n != 0 && (n & (n - 1)) == 0 && n <= DM_IO_PAGE_SIZE;
}

bool
direct_find_alignment (int fd, struct direct_alignment *align)
{
  if (!ask_alignment (fd, align))
    *align = guess_alignment (fd);
  if (!fits_page (align->block_size) || !fits_page (align->mem_align))
    return false;
  align->block_size = MAX (align->block_size, DM_IO_SECTOR_SIZE);
  return true;
}
