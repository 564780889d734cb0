/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A copy of the log, read without a server. */

#ifndef DMIOCTL_LOG_H
#define DMIOCTL_LOG_H

#include <stdbool.h>

/* Print what is in the file.  False if it cannot be read, is no log or has
 * blocks whose checksum is wrong, with a message in *ERROR to be freed with
 * g_free.
 */
extern bool print_log_file (const char *file, char **error);

#endif /* DMIOCTL_LOG_H */
