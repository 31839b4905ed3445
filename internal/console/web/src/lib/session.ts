// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Who has signed in. The session itself is a cookie that no script can read.

export interface Session {
  /** The user whose usage is theirs. */
  user: string;
  /** Who they are for access rights. */
  username: string;
  expires_at: string;
  /** Where a larger plan is bought, if that is anywhere. */
  upgrade_url?: string;
}

/** The session of this browser, or null without one. Throws where the service does not answer. */
export async function whoAmI(): Promise<Session | null> {
  const answer = await fetch('/auth/session', { credentials: 'same-origin', cache: 'no-store' });
  if (answer.status === 401) return null;
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return (await answer.json()) as Session;
}

/** Where to sign in, and to come back from to where this page is now. */
export function signInAt(here: Location = location): string {
  return `/auth/login?return=${encodeURIComponent(here.pathname + here.search)}`;
}

/** Ends the session, or all those of its person, and loads the page anew, so that nothing of it stays. */
export async function signOut(everywhere = false): Promise<void> {
  const answer = await fetch(`/auth/logout${everywhere ? '?everywhere=true' : ''}`, { method: 'POST', credentials: 'same-origin' });
  if (!answer.ok && answer.status !== 401) throw new Error(`HTTP ${answer.status}`);
  location.reload();
}
