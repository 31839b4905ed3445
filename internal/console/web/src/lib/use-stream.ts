// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A stream for as long as a component is shown.

import { useEffect, useState } from 'preact/hooks';
import type { Refused } from './api';
import { useApi } from './api-context';
import { follow, type StreamState } from './stream';

/** Hears a path's events; `heard` may change from render to render. */
export function useStream(path: string, heard: (name: string, data: unknown) => void): { state: StreamState; refused: Refused | undefined } {
  const api = useApi();
  const [state, setState] = useState<StreamState>('connecting');
  const [refused, setRefused] = useState<Refused>();
  useEffect(() => {
    setRefused(undefined);
    return follow(api, path, { event: heard, state: setState, refused: setRefused });
  }, [api, path]);
  return { state, refused };
}
