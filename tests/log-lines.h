/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the library logs for users, for tests in which another thread may
 * do that than the test's own, so that g_test_expect_message cannot be
 * used.
 */

#ifndef DMIO_LOG_LINES_H
#define DMIO_LOG_LINES_H

/* Keep warnings from now on, instead of aborting at the first. */
extern void log_lines_keep (void);

/* How many of the lines since log_lines_clear match a pattern, which is
 * that of g_pattern_match_simple.
 */
extern unsigned int log_lines_count (const char *pattern);
extern void log_lines_clear (void);

/* Wait until there is one, or give up. */
extern void log_lines_await (const char *pattern);

/* There is one such line, and N in all. */
extern void log_lines_assert (const char *pattern, unsigned int n);

#endif /* DMIO_LOG_LINES_H */
