# SPDX-License-Identifier: Apache-2.0
#
# What R's ets says of public series, for forecast's tests to compare with: `make forecast-oracle`. Needs Debian's
# r-base-core and r-cran-forecast; nothing else does, since what this writes is committed.
#
# series.csv has a series a line: its name, how long its season is, and its values, made whole numbers by the factor.
# ets.csv has a line for each origin: how many values ets was given, how many it was to foretell, what model it took,
# its MASE by R's own accuracy(), and of how many of the sums over the first 1, 2, ... values foretold the real one lies
# between the first and the ninth decile of simulated futures.

suppressPackageStartupMessages(library(forecast))

args <- commandArgs(trailingOnly = TRUE)
into <- if (length(args) > 0) args[1] else "."
daily <- ts(colSums(matrix(taylor, nrow = 48)), frequency = 7)

# Whatever of these packages is never negative and has seasons that ets can be given (24 at most), the demand for
# electricity by day among them, whose week is the one of our users.
series <- list(
  AirPassengers   = list(AirPassengers, 1),
  JohnsonJohnson  = list(JohnsonJohnson, 100),
  UKDriverDeaths  = list(UKDriverDeaths, 1),
  UKgas           = list(UKgas, 10),
  USAccDeaths     = list(USAccDeaths, 1),
  co2             = list(co2, 100),
  gas             = list(gas, 1),
  ldeaths         = list(ldeaths, 1),
  nottem          = list(nottem, 10),
  "taylor by day" = list(daily, 1),
  wineind         = list(wineind, 1),
  woolyrnq        = list(woolyrnq, 1)
)
origins <- 8
simulations <- 2000

lines <- "name,season,factor,values"
results <- "name,given,ahead,model,mase,within"
for (name in names(series)) {
  x <- round(series[[name]][[1]] * series[[name]][[2]])
  m <- frequency(x)
  n <- length(x)
  lines <- c(lines, paste0(name, ",", m, ",", series[[name]][[2]], ",\"", paste(x, collapse = " "), "\""))
  # The origins lie evenly in the later half, and a season is foretold from each.
  for (given in unique(floor(seq(ceiling(n / 2), n - m, length.out = origins)))) {
    past <- subset(x, end = given)
    future <- subset(x, start = given + 1, end = given + m)
    fit <- ets(past)
    mase <- accuracy(forecast(fit, h = m), future)["Test set", "MASE"]
    set.seed(1)
    sums <- replicate(simulations, cumsum(simulate(fit, nsim = m)))
    bounds <- apply(sums, 1, quantile, probs = c(0.1, 0.9))
    real <- cumsum(future)
    within <- sum(real >= bounds[1, ] & real <= bounds[2, ])
    results <- c(results, paste(name, given, m, fit$method, sprintf("%.6f", mase), within, sep = ","))
  }
  message(name)
}
writeLines(gsub("ETS\\(([^,]+),([^,]+),([^)]+)\\)", "ETS(\\1 \\2 \\3)", results), file.path(into, "ets.csv"))
writeLines(lines, file.path(into, "series.csv"))
