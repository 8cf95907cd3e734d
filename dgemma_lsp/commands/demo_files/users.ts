export interface User {
  id: number;
  name: string;
  email: string;
  age: number;
}

export async function fetchUsers(url: string): Promise<User[]> {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`request failed: ${response.status}`);
  }
  return (await response.json()) as User[];
}

export function names(users: User[]): string[] {
  return users.map((user) => user.name);
}

export function adults(users: User[]): User[] {
  return users.filter((user) => user.age >= 18);
}

export function averageAge(users: User[]): number {
  if (users.length === 0) {
    return 0;
  }
  const total = users.reduce((sum, user) => sum + user.age, 0);
  return total / users.length;
}

export function byId(users: User[]): Map<number, User> {
  const result = new Map<number, User>();
  for (const user of users) {
    result.set(user.id, user);
  }
  return result;
}
