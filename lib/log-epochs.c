/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the superblocks of two copies of a log say of each other.
 *
 * Copies of one epoch have had the same commits.  A copy that goes on without another
 * begins a new epoch and keeps the old one in its history, so the newest epoch that
 * two of them have in common is where they parted.  If one has written to no leg
 * since, the other knows all that is to be known.
 */

#include <config.h>

#include <string.h>

#include "log-private.h"

/* How many epochs before its own one it is in which a superblock has this one; or -1. */
static int
find_epoch (const struct log_super *super, uint64_t epoch)
{
  unsigned int i;

  if (super->epoch == epoch)
    return 0;
  for (i = 0; i < super->num_history; i++)
    if (super->history[i] == epoch)
      return i + 1;
  return -1;
}

bool
log_knows_no_more (const struct log_super *super,
                   const struct log_super *other)
{
  unsigned int own = 0;

  if (memcmp (super->uuid, other->uuid, LOG_UUID) != 0)
    return false;
  if (find_epoch (other, super->epoch) >= 0)
    return true;
  while (own < super->num_history &&
         find_epoch (other, super->history[own]) < 0)
    own++;
  /* history[own] is where they parted; before it come own epochs and its present one. */
  return own < super->num_history && own + 1 <= super->quiet;
}
