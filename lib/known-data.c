/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <string.h>

#include "known-data.h"

void
known_data_init (struct known_data *known)
{
  memset (known, 0, sizeof *known);
  pthread_mutex_init (&known->lock, NULL);
}

void
known_data_fini (struct known_data *known)
{
  pthread_mutex_destroy (&known->lock);
}

bool
known_data_find (struct known_data *known, uint64_t offset, uint64_t *end,
                 uint64_t *forgotten)
{
  bool found = false;
  unsigned int i;

  pthread_mutex_lock (&known->lock);
  *forgotten = known->forgotten;
  for (i = 0; i < KNOWN_DATA_RUNS && !found; i++)
    if (offset >= known->runs[i].from && offset < known->runs[i].end) {
      *end = known->runs[i].end;
      found = true;
    }
  pthread_mutex_unlock (&known->lock);
  return found;
}

void
known_data_add (struct known_data *known, uint64_t from, uint64_t end,
                uint64_t forgotten)
{
  pthread_mutex_lock (&known->lock);
  if (known->forgotten == forgotten) {
    known->runs[known->next].from = from;
    known->runs[known->next].end = end;
    known->next = (known->next + 1) % KNOWN_DATA_RUNS;
  }
  pthread_mutex_unlock (&known->lock);
}

void
known_data_forget (struct known_data *known, uint64_t from, uint64_t length)
{
  unsigned int i;

  pthread_mutex_lock (&known->lock);
  known->forgotten++;
  for (i = 0; i < KNOWN_DATA_RUNS; i++)
    if (from < known->runs[i].end && from + length > known->runs[i].from)
      known->runs[i].end = known->runs[i].from;
  pthread_mutex_unlock (&known->lock);
}
