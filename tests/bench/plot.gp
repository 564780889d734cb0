# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# gnuplot -c plot.gp OUTPUT DATA SERIES TITLE XLABEL YLABEL
#
# DATA has a header, and tabs between columns: x, its text, and for each of
# SERIES lines the median, smallest and largest value.

set terminal svg size 720,420 font "sans-serif,13" background "white"
set output ARG1
set datafile separator "\t"
set title ARG4 noenhanced
set xlabel ARG5 noenhanced
set ylabel ARG6 noenhanced
set logscale x 2
set xrange [*:*] noextend
set offsets graph 0.03, graph 0.03, 0, 0
set yrange [0:*]
set format y "%.10g"
set grid ytics linecolor "#dddddd"
set border 3
set tics nomirror
set key below center horizontal noenhanced
plot for [i = 0:ARG3 - 1] ARG2 \
  using 1:(column(3 + 3 * i)):(column(4 + 3 * i)):(column(5 + 3 * i)) \
        :xticlabel(2) \
  with yerrorlines linewidth 2 pointtype 7 pointsize 0.6 \
  title columnheader(3 + 3 * i)
