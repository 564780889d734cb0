/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Write one buffer to three files at once, and print which of them
 * failed:
 *
 *   truncate -s 1M a.img b.img
 *   mirror-three-files a.img b.img /dev/full
 *
 * The exit status is 0 if all three have the data.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dm-io.h>

#define SECTORS 8

static int
open_all (char **paths, struct io_region *where)
{
  char *error;
  int i;

  for (i = 0; i < 3; i++) {
    where[i].bdev = dm_bdev_open (paths[i], NULL, &error);
    if (where[i].bdev == NULL) {
      fprintf (stderr, "%s\n", error);
      free (error);
      return -1;
    }
    where[i].count = SECTORS;
  }
  return 0;
}

int
main (int argc, char *argv[])
{
  struct io_region where[3] = { { 0 } };
  char buffer[SECTORS * DM_IO_SECTOR_SIZE];
  unsigned long failed;
  int i, r = -1;

  if (argc != 4) {
    fprintf (stderr, "usage: %s FILE FILE FILE\n", argv[0]);
    return EXIT_FAILURE;
  }

  memset (buffer, 'd', sizeof buffer);
  if (open_all (argv + 1, where) == 0) {
    r = dm_io_sync_vm (3, where, WRITE, buffer, &failed);
    printf ("failed regions: %#lx\n", failed);
    for (i = 0; i < 3; i++)
      printf ("  %s: %s\n", dm_bdev_name (where[i].bdev),
              failed & 1UL << i ? "failed" : "ok");
  }

  for (i = 0; i < 3; i++)
    dm_bdev_close (where[i].bdev);
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
