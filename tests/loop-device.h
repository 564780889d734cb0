/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Loop devices, block devices that are files, for tests run by root. */

#ifndef DMIO_LOOP_DEVICE_H
#define DMIO_LOOP_DEVICE_H

#include <stdbool.h>

struct loop_device {
  int fd;                       /* the kernel keeps it as long as that */
  char path[32];
};

/* Make FILE a device with blocks of this size.  False if that is not
 * possible here.
 */
extern bool loop_attach (struct loop_device *loop, const char *file,
                         unsigned int block_size);
extern void loop_detach (struct loop_device *loop);

#endif /* DMIO_LOOP_DEVICE_H */
