/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is done for a process that connects. */
#ifndef COUNT_H
#define COUNT_H

#include "look.h"

/* Makes a place for this process. Another thread of it may be first. */
static __attribute__((noinline)) struct owner *admit(const struct process *process)
{
	struct owner owner = {.unclaimed = token_of(process), .summary.process = *process};

	bpf_get_current_comm(owner.summary.name, sizeof(owner.summary.name));
	if (!bpf_map_update_elem(&owners, process, &owner, BPF_NOEXIST)) {
		bpf_wq_add(tracked.processes, 1);
		look_later();
	}
	return bpf_map_lookup_elem(&owners, process);
}

/* Makes an entry for an address. Another thread of the process may be first. */
static __attribute__((noinline)) void count_first(struct owner *owner, const struct entry_key *key)
{
	struct entry entry = {.count = 1}, *found;
	int err;

	err = bpf_map_update_elem(&entries, key, &entry, BPF_NOEXIST);
	found = bpf_map_lookup_elem(&entries, key);
	if (!found) {
		bpf_wq_add(owner->summary.untracked, 1);
		return;
	}
	if (err) {
		bpf_wq_add(found->count, 1);
		return;
	}
	bpf_spin_lock(&owner->lock);
	found->older = owner->newest;
	owner->newest = key->address;
	owner->entries++;
	bpf_spin_unlock(&owner->lock);
	bpf_wq_add(tracked.entries, 1);
}

static __always_inline int count(const struct address *address)
{
	struct entry_key key = {.address = *address};
	struct owner *owner;
	struct entry *entry;

	process_of(bpf_get_current_task_btf(), &key.process);
	owner = bpf_map_lookup_elem(&owners, &key.process);
	if (!owner)
		owner = admit(&key.process);
	if (!owner) {
		bpf_wq_add(tracked.missed, 1);
		return 1;
	}
	entry = bpf_map_lookup_elem(&entries, &key);
	if (entry)
		bpf_wq_add(entry->count, 1);
	else
		count_first(owner, &key);
	return 1;
}

#endif
