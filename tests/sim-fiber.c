/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Threads are fibers: each has a stack, and one runs at a time, until it
 * comes to a point where others may run.  Who is next is a random
 * choice among the fibers that can run and the I/O in flight.  Time is
 * virtual: it goes on a little with each step, and jumps to the next timeout
 * when nobody can run.
 *
 * At a power cut the fibers are simply forgotten, with all they held; memory
 * that they had allocated is not given back, so a process should not run
 * more than some thousand histories.
 */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "sim.h"

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#define MAX_FIBERS 64
#define GUARD 4096
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define STACK (1024 * 1024)
#else
#define STACK (256 * 1024)
#endif
/* More steps than any history takes: it does not end. */
#define MAX_STEPS 4000000
/* 2026-01-01, in nsec since 1970. */
#define EPOCH UINT64_C (1767225600000000000)

enum state { UNUSED, RUNNABLE, BLOCKED, ENDED };

struct context {
#ifdef __x86_64__
  void *sp;
#else
  ucontext_t uc;
#endif
  char *stack;
  void *fake_stack;             /* of AddressSanitizer */
  void *tsan;                   /* of ThreadSanitizer */
};

struct sim_fiber {
  struct context context;
  enum state state;
  void *(*run) (void *);
  void *arg, *result;
  const char *name;
  const void *address;          /* BLOCKED: what it waits for */
  const char *why;
  uint64_t until;
  bool timed_out;
};

struct sim_rng sim_schedule;
struct sim_style sim_style;
uint64_t sim_now, sim_steps;

static struct sim_fiber fibers[MAX_FIBERS];
static unsigned int num_fibers; /* in use: the first so many */
static unsigned int runnable;   /* of these */
static uint64_t next_timeout;   /* not after the first of all */
static struct context outside;
static struct sim_fiber *current;
static void (*main_function) (void);
static uint64_t cut_step;
static bool was_cut;

/*----------------------------------------------------------------------
 * Switching
 */

#ifdef __x86_64__
extern void sim_switch_stack (void **save, void *load);
__asm__ (".text\n"
         ".p2align 4\n"
         ".globl sim_switch_stack\n"
         ".type sim_switch_stack, @function\n"
         "sim_switch_stack:\n"
         "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n"
         "  pushq %r13\n  pushq %r14\n  pushq %r15\n"
         "  movq %rsp, (%rdi)\n"
         "  movq %rsi, %rsp\n"
         "  popq %r15\n  popq %r14\n  popq %r13\n"
         "  popq %r12\n  popq %rbx\n  popq %rbp\n"
         "  ret\n"
         ".size sim_switch_stack, .-sim_switch_stack\n");
#endif

#if defined __SANITIZE_ADDRESS__
static size_t outside_size;

/* The first who arrives comes from the thread's own stack. */
static void
arrived (struct context *context)
{
  const void *bottom;
  size_t size;

  __sanitizer_finish_switch_fiber (context->fake_stack, &bottom, &size);
  if (outside.stack == NULL) {
    outside.stack = (char *) bottom;
    outside_size = size;
  }
}

static void
leave (struct context *from, const struct context *to)
{
  if (to == &outside)
    __sanitizer_start_switch_fiber (&from->fake_stack, to->stack,
                                    outside_size);
  else
    __sanitizer_start_switch_fiber (&from->fake_stack, to->stack + GUARD,
                                    STACK);
}
#elif defined __SANITIZE_THREAD__
#define arrived(context)
#define leave(from, to) __tsan_switch_to_fiber ((to)->tsan, 0)
#else
#define arrived(context)
#define leave(from, to)
#endif

static void
fiber_main (void)
{
  struct sim_fiber *self = current;

  arrived (&self->context);
  self->result = self->run (self->arg);
  self->state = ENDED;
  runnable--;
  sim_wake (self, true);
  sim_yield ();
  abort ();
}

static void
make_context (struct context *context)
{
  char *low = context->stack + GUARD;

#if defined __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region (low, STACK);
#endif
#ifdef __x86_64__
  /* As after a call: aligned to 16 less the return address. */
  void **sp = (void **) (low + STACK - 72);

  memset (sp, 0, 64);
  *--sp = (void *) fiber_main;
  sp -= 6;
  memset (sp, 0, 6 * sizeof *sp);
  context->sp = sp;
#else
  getcontext (&context->uc);
  context->uc.uc_stack.ss_sp = low;
  context->uc.uc_stack.ss_size = STACK;
  context->uc.uc_link = NULL;
  makecontext (&context->uc, fiber_main, 0);
#endif
#if defined __SANITIZE_THREAD__
  if (context->tsan != NULL)
    __tsan_destroy_fiber (context->tsan);
  context->tsan = __tsan_create_fiber (0);
#endif
  context->fake_stack = NULL;
}

static void
switch_context (struct context *from, struct context *to)
{
  leave (from, to);
#ifdef __x86_64__
  sim_switch_stack (&from->sp, to->sp);
#else
  swapcontext (&from->uc, &to->uc);
#endif
  arrived (from);
}

/*----------------------------------------------------------------------
 * The scheduler
 */

struct sim_fiber *
sim_self (void)
{
  return current;
}

const char *
sim_fiber_name (const struct sim_fiber *fiber)
{
  return fiber == NULL ? "-" : fiber->name;
}

int64_t sim_clock_error;

uint64_t
sim_date (void)
{
  return EPOCH + sim_now + sim_clock_error;
}

static void
deadlock (void)
{
  static char text[900];
  unsigned int i;
  size_t n = 0;

  for (i = 0; i < num_fibers && n < sizeof text; i++)
    if (fibers[i].state == BLOCKED)
      n += snprintf (text + n, sizeof text - n, " %s:%s", fibers[i].name,
                     fibers[i].why);
  sim_fail ("deadlock:%s", text);
}

static void
make_runnable (struct sim_fiber *fiber, bool timed_out)
{
  fiber->state = RUNNABLE;
  fiber->timed_out = timed_out;
  fiber->address = NULL;
  runnable++;
}

/* Let those run whose time has come; finds the next timeout. */
static void
expire (void)
{
  struct sim_fiber *f;

  next_timeout = SIM_NEVER;
  for (f = fibers; f < fibers + num_fibers; f++) {
    if (f->state != BLOCKED)
      continue;
    if (f->until <= sim_now)
      make_runnable (f, true);
    else if (f->until < next_timeout)
      next_timeout = f->until;
  }
  sim_devices_update ();
}

/* Nobody can run now. */
static void
advance (uint64_t io_at)
{
  uint64_t to;

  expire ();
  if (runnable > 0)
    return;
  to = io_at < next_timeout ? io_at : next_timeout;
  if (to == SIM_NEVER)
    deadlock ();
  if (to > sim_now)
    sim_now = to;
  expire ();
}

static struct sim_fiber *
nth_runnable (unsigned int n)
{
  struct sim_fiber *f;

  for (f = fibers; ; f++)
    if (f->state == RUNNABLE && n-- == 0)
      return f;
}

static void
maybe_jump (void)
{
  if (sim_style.jump == 0 ||
      sim_below (&sim_schedule, 1000) >= sim_style.jump)
    return;
  expire ();
  if (next_timeout != SIM_NEVER && next_timeout > sim_now)
    sim_now = next_timeout;
}

static void
cut_here (void)
{
  was_cut = true;
  switch_context (&current->context, &outside);
  abort ();
}

/* Who runs next: makes steps of I/O until it is a fiber's turn. */
static struct sim_fiber *
choose (void)
{
  uint64_t io_at;

  for (;;) {
    if (++sim_steps == cut_step)
      cut_here ();
    if (sim_steps > MAX_STEPS)
      sim_fail ("the history does not end");
    sim_now += 1000 + sim_below (&sim_schedule, 2000);
    maybe_jump ();
    if (sim_now >= next_timeout)
      expire ();
    io_at = SIM_NEVER;
    if (sim_io_pending () > 0 &&
        (runnable == 0 || sim_chance (&sim_schedule, sim_style.io))) {
      io_at = sim_io_step ();
      if (io_at == 0)
        continue;
    }
    if (runnable > 0)
      return nth_runnable (sim_below (&sim_schedule, runnable));
    advance (io_at);
  }
}

static void
schedule (void)
{
  struct sim_fiber *from = current, *to = choose ();

  if (to == from)
    return;
  current = to;
  switch_context (&from->context, &to->context);
}

void
sim_yield (void)
{
  if (current->state != RUNNABLE ||
      sim_chance (&sim_schedule, sim_style.yield))
    schedule ();
}

bool
sim_block (const void *address, uint64_t until, const char *why)
{
  struct sim_fiber *self = current;

  if (until <= sim_now) {
    sim_yield ();
    return false;
  }
  self->state = BLOCKED;
  self->address = address;
  self->until = until;
  self->why = why;
  runnable--;
  if (until < next_timeout)
    next_timeout = until;
  schedule ();
  return !self->timed_out;
}

void
sim_wake (const void *address, bool all)
{
  struct sim_fiber *f, *one = NULL;
  unsigned int n = 0;

  for (f = fibers; f < fibers + num_fibers; f++) {
    if (f->state != BLOCKED || f->address != address)
      continue;
    if (all)
      make_runnable (f, false);
    else if (sim_below (&sim_schedule, ++n) == 0)
      one = f;
  }
  if (one != NULL)
    make_runnable (one, false);
}

void
sim_sleep (uint64_t nsec)
{
  sim_block (NULL, sim_now + nsec, "sleep");
}

/*----------------------------------------------------------------------
 * Their lives
 */

static char *
new_stack (void)
{
  char *p = mmap (NULL, GUARD + STACK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED || mprotect (p, GUARD, PROT_NONE) == -1) {
    perror ("no memory for the stack of a fiber");
    exit (1);
  }
  return p;
}

static struct sim_fiber *
free_fiber (void)
{
  unsigned int i;

  for (i = 0; i < num_fibers; i++)
    if (fibers[i].state == UNUSED)
      return &fibers[i];
  if (num_fibers == MAX_FIBERS)
    sim_fail ("more than %d threads", MAX_FIBERS);
  return &fibers[num_fibers++];
}

struct sim_fiber *
sim_spawn (void *(*run) (void *), void *arg, const char *name)
{
  struct sim_fiber *f = free_fiber ();

  if (f->context.stack == NULL)
    f->context.stack = new_stack ();
  make_context (&f->context);
  f->run = run;
  f->arg = arg;
  f->name = name;
  f->state = RUNNABLE;
  runnable++;
  return f;
}

void *
sim_join (struct sim_fiber *f)
{
  while (f->state != ENDED)
    sim_block (f, SIM_NEVER, "join");
  f->state = UNUSED;
  return f->result;
}

static void *
run_main (void *unused)
{
  main_function ();
  switch_context (&current->context, &outside);
  abort ();
}

bool
sim_run (void (*main) (void), uint64_t cut_at)
{
  unsigned int i;

  for (i = 0; i < num_fibers; i++)
    fibers[i].state = UNUSED;
  num_fibers = runnable = 0;
  next_timeout = SIM_NEVER;
  sim_steps = 0;
  cut_step = cut_at;
  was_cut = false;
  main_function = main;
  current = sim_spawn (run_main, NULL, "main");
#if defined __SANITIZE_THREAD__
  outside.tsan = __tsan_get_current_fiber ();
#endif
  switch_context (&outside, &current->context);
  current = NULL;
  return !was_cut;
}
