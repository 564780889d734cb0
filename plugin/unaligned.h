/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Requests that are not in whole blocks, in the log, without a flood. */

#ifndef DMIO_UNALIGNED_H
#define DMIO_UNALIGNED_H

#include <stdint.h>

/* Log such a request, or count it if one of the same OP, which is not copied,
 * was logged less than FAILURE_LOG_INTERVAL ago.  UNIT: bytes of a block.
 */
extern void unaligned_add (const char *op, uint32_t count, uint64_t offset,
                           unsigned int unit);

/* Log the sums that are still due. */
extern void unaligned_end (void);

#endif /* DMIO_UNALIGNED_H */
