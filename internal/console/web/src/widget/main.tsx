// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The widget.
import css from './widget.css';
console.log(css);
