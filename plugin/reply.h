/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What became of the legs, as one errno for the client. */

#ifndef DMIO_REPLY_H
#define DMIO_REPLY_H

#include "dm-io.h"

/* The errno to answer with when a request failed as RESULTS say: one
 * that nbdkit can put into an NBD reply.
 */
extern int reply_errno (const struct dm_io_result *results, unsigned int n);

#endif /* DMIO_REPLY_H */
