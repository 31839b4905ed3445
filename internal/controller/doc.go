// SPDX-License-Identifier: Apache-2.0

// Package controller reconciles UsagePlans, UsageTeams and UserQuotas into the database, schedules resets, writes where
// users and teams stand into the objects' status, and admits Jobs. What may be used is decided by metering; here
// objects are read and written.
package controller
