/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The state of a mirror, for people. */

#ifndef DMIOCTL_TEXT_H
#define DMIOCTL_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/* "1.2 GiB"; to be freed with g_free. */
extern char *text_size (uint64_t bytes);

/* Instead of the place of a copy of the log. */
#define TEXT_NO_PLACE "(place not known)"

/* STATUS is what the method status returns. */
extern void text_print_status (GVariant *status);

/* Its legs as a list of dictionaries (GVariant). */
extern GPtrArray *text_get_legs (GVariant *status);

/* True if there is nothing left to wait for. */
extern bool text_is_in_sync (GVariant *status);

/* A bar on one line of the terminal, written again each time.  Zero at first;
 * it never goes back.
 */
struct text_bar {
  uint64_t all;
  double done;                  /* 0 to 1 */
};
extern void text_draw_bar (struct text_bar *bar, GVariant *status);

#endif /* DMIOCTL_TEXT_H */
